r"""The share of binary weights whose signs flip, for each layer.

.. math:: \pi_t = \frac{1}{n} \left| \{ i : \mathrm{sign}(w_{t,i}) \neq
          \mathrm{sign}(w_{t-1,i}) \} \right|                                             (1)

over the n weights of a layer. A network of signs changes in no other way, so that this is what a
learning rate does to it: rates that make more than a few weights in a thousand flip in each step
keep the network from settling, and with hardly any flips it does not learn. The paper plots
log(pi + e^-9).

Reference:
    Helwegen et al., Latent Weights Do Not Exist, NeurIPS 2019, https://arxiv.org/abs/1906.02107,
    which chooses the hyperparameters of Bop by them.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nnlab.errors import InputError
from nnlab.optim.freezing import leaf_name

Shares = dict[str, jax.Array]


class FlipState(NamedTuple):
    """The number of updates, int32 scalar, and (1) of the last one and summed over all, float32."""

    count: jax.Array
    last: Shares
    total: Shares


class Flips(NamedTuple):
    """The share (1) of one layer in the last update, and its mean over all updates."""

    last: float
    mean: float


def measure_flips(kinds: Collection[str] = ("binary",)) -> optax.GradientTransformation:
    """Keep the shares (1) in the state and pass updates on; last in a chain.

        optimizer = optax.chain(adder_recipe(steps, parts={"binary": bop()}), measure_flips())

        def flips(moment):
            print(moment.step, flipped_signs(moment.state.opt_state))

        fit(…, on_epoch=flips)

    Latent real weights and those of -1 and +1 count alike, by their signs; that of 0 is +1, as in
    `nnlab.ops.binary`.

    Args:
        kinds: the first words of the names of kernels to look at: "binary" for `binary_kernel`.

    Raises:
        InputError: on `init`, if there is no such kernel.
    """

    def init(params):
        zeros = {name: jnp.zeros((), jnp.float32) for name in _kernels(params, kinds)}
        if not zeros:
            raise InputError(
                f"the network has no kernel of kind {' or '.join(kinds)}; give measure_flips the"
                " kinds to look at, such as adder for adder_kernel."
            )
        return FlipState(jnp.zeros((), jnp.int32), zeros, dict(zeros))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("measure_flips needs the parameters: update(updates, state, params).")
        last = flipped(params, optax.apply_updates(params, updates), kinds)
        total = {name: state.total[name] + share for name, share in last.items()}
        return updates, FlipState(jnp.asarray(optax.safe_increment(state.count)), last, total)

    return optax.GradientTransformation(init, update)


def flipped(before: Any, after: Any, kinds: Collection[str] = ("binary",)) -> Shares:
    """Return (1) between two trees of parameters, float32 scalars by the kernels' paths.

    Over an epoch, signs that have flipped twice are back where they were.

    Raises:
        InputError: the trees have kernels of other names or shapes.
    """
    old, new = _kernels(before, kinds), _kernels(after, kinds)
    if {k: w.shape for k, w in old.items()} != {k: w.shape for k, w in new.items()}:
        raise InputError("the kernels before and after differ, expected those of one network.")
    return {
        name: jnp.mean((w >= 0) != (new[name] >= 0), dtype=jnp.float32) for name, w in old.items()
    }


def flipped_signs(opt_state: optax.OptState) -> dict[str, Flips]:
    """Return what `measure_flips` keeps somewhere in `opt_state`, by the kernels' paths.

    Raises:
        InputError: the state holds no such shares, or several.
    """
    found = optax.tree.get_all_with_path(opt_state, FlipState.__name__)
    if len(found) != 1:
        raise InputError(
            f"The state of the optimiser holds {len(found)} counts of flips; expected one of"
            " measure_flips."
        )
    state: Any = jax.device_get(found[0][1])
    updates = max(int(state.count), 1)
    return {
        name: Flips(float(share), float(state.total[name]) / updates)
        for name, share in state.last.items()
    }


def _kernels(params: Any, kinds: Collection[str]) -> Shares:
    names = {f"{kind}_kernel" for kind in kinds}
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if leaf_name(path) in names
    }
