"""Two phases on one state: the same as one after the other by hand."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from phases import after_warm_up

from nnlab.arithmetics import POSIT8, in_format
from nnlab.models import SmallCNN
from nnlab.ops.formats import posit, scaled
from nnlab.optim import rounded
from nnlab.training import (
    evaluation,
    init,
    train_epoch,
    train_step,
)

RNG = np.random.default_rng(0)
DATA = (
    jnp.asarray(RNG.normal(size=(12, 4, 4, 1)), jnp.float32),
    jnp.asarray(RNG.integers(0, 3, 12), jnp.int32),
)


@pytest.mark.slow
def test_posits_after_a_warm_up_in_float32():
    small = functools.partial(SmallCNN, 3, widths=(2, 4, 4))
    real, posits = small(arithmetic=in_format()), small(arithmetic=POSIT8)
    sgd = optax.sgd(optax.cosine_decay_schedule(0.1, 12), 0.9)
    posit_sgd = rounded(sgd, gradients=scaled(posit(8, 2)), weights=posit(16, 1))
    first, then = train_step(real, sgd), train_step(posits, posit_sgd)
    epoch = train_epoch(after_warm_up(4, first, then), 4)  # 3 steps an epoch: amid the second
    evaluate = after_warm_up(4, evaluation(real), evaluation(posits))

    start = init(jax.random.key(0), real, sgd, DATA[0])
    chex.assert_trees_all_equal(start.params, init(jax.random.key(0), posits, sgd, DATA[0]).params)
    middle, _ = epoch(start, DATA)
    state, _ = epoch(middle, DATA)
    assert int(state.step) == 6

    # By hand: an epoch and a step of the one, and from that state two of the other
    order = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(start.key, 0), 1), 12)
    by_hand, _ = train_epoch(first, 4)(start, DATA)
    for number, step in enumerate((first, then, then)):
        chosen = order[4 * number : 4 * number + 4]
        by_hand, _ = jax.jit(step)(by_hand, (DATA[0][chosen], DATA[1][chosen]))
    # Programs compiled apart may sum in another order: float32's last bits of numbers around 1,
    # which a rounding in 16 bits may make one of its steps, 2^-12 below 1.
    chex.assert_trees_all_close(state.params, by_hand.params, atol=2**-11)
    for kept in (middle, state):
        which = real if kept is middle else posits
        expected = evaluation(which)(kept, DATA)
        np.testing.assert_allclose(evaluate(kept, DATA)["loss"], expected["loss"], rtol=2**-18)
    assert float(evaluation(real)(state, DATA)["loss"]) != float(evaluate(state, DATA)["loss"])
