"""Float16 learns with a loss scale what it cannot without one; the rule is that of Flax."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.dynamic_scale import DynamicScale

from nnlab import training
from nnlab.errors import DivergedError, InputError
from nnlab.runs import RunFolder, fit, least_loss
from nnlab.training.loss_scaling import adjusted, begun

TINY = 2.0**-26  # a factor of the loss, whose gradients float16 rounds to 0
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(16, 4)).astype(np.float32)
TARGETS = (INPUTS @ RNG.normal(size=(4, 2)) + 0.5).astype(np.float32)
DATA = INPUTS, TARGETS
SGD = optax.sgd(0.1 / TINY)


class Net(nn.Module):
    dtype: jnp.dtype | None = jnp.float16  # pyright: ignore[reportAssignmentType]

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(2, dtype=self.dtype)(nn.Dense(8, dtype=self.dtype)(x))


def loss(outputs, targets):
    return TINY * jnp.square(outputs - targets).mean()


def nothing(outputs, targets):
    return {}


def stepping(dtype, **options):
    return training.train_step(Net(dtype), SGD, loss, metrics=nothing, **options)


def start(scale=None):
    return training.init(jax.random.key(0), Net(), SGD, INPUTS, loss_scale=scale)


@functools.cache
def steps(dtype, **options):
    return jax.jit(training.train_steps(stepping(dtype, **options), 4))


def trained(dtype, scale, epochs=8, **options):
    state, metrics = start(scale), []
    for _ in range(epochs):
        state, found = steps(dtype, **options)(state, DATA, 4)
        metrics.append(found)
    return state, jax.tree.map(lambda *each: np.concatenate(each), *metrics)


SCALE = DynamicScale(growth_interval=10)


def test_float16_learns_with_a_scale_and_not_without():
    exact, _ = trained(None, None)
    scaled, metrics = trained(jnp.float16, SCALE)
    stuck, _ = trained(jnp.float16, None)
    for a, b, c, before in zip(
        *(jax.tree.leaves(state.params) for state in (scaled, exact, stuck, start())), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=0.03)
        assert a.dtype == np.float32 and (c == before).all() and (a != before).all()
    assert metrics["loss"][-4:].mean() < 0.2 * metrics["loss"][:4].mean()
    # Doubled after ten finite steps that follow one another, as often as there are eleven.
    assert metrics["loss_scale"].tolist() == [2.0 ** (16 + n // 11) for n in range(32)]
    assert not metrics["overflow"].any()


def test_a_gradient_that_overflows_changes_the_scale_alone():
    state, metrics = trained(jnp.float16, DynamicScale(scale=2.0**50), epochs=1)
    assert metrics["overflow"].tolist() == [1] * 4 and metrics["nonfinite"].tolist() == [-1] * 4
    assert metrics["loss_scale"].tolist() == [2.0 ** (50 - n) for n in range(4)]
    assert state.step == 4 and state.loss_scale.scale == 2.0**46
    before = start(DynamicScale())._replace(step=state.step, loss_scale=state.loss_scale)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(before), strict=True):
        assert (a == b).all() if a.dtype == before.key.dtype else np.array_equal(a, b)


def test_a_scale_that_cannot_be_smaller_does_not_hide_the_overflow():
    scale = DynamicScale(scale=2.0**50, minimum_scale=2.0**49)
    state, metrics = trained(jnp.float16, scale, epochs=1)
    assert int(state.step) == 1 and metrics["overflow"].tolist()[:2] == [1, 0]
    name = training.leaf_name(state, int(metrics["nonfinite"][1]))
    assert name.startswith("gradients['Dense_0']")


def test_a_scale_changes_nothing_in_float32():
    plain, _ = trained(None, None, epochs=2)
    scaled, _ = trained(None, SCALE, epochs=2)
    for a, b in zip(jax.tree.leaves(plain.params), jax.tree.leaves(scaled.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_parts_of_a_batch_have_one_scale():
    whole, _ = trained(jnp.float16, SCALE, epochs=2)
    parts, _ = trained(jnp.float16, SCALE, epochs=2, accumulate=2)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(parts.params), strict=True):
        np.testing.assert_allclose(a, b, atol=0.03)
    assert parts.loss_scale.fin_steps == whole.loss_scale.fin_steps == 8


def test_devices_agree_on_the_overflow_of_one():
    """Under an axis of `jax.vmap`, which has the collectives of `jax.pmap`."""
    step = stepping(jnp.float16, axis_name="data")
    spoilt = np.stack([INPUTS[:4], np.full((4, 4), 60000, np.float32)])
    targets = np.stack([TARGETS[:4]] * 2)
    scale = begun(DynamicScale(scale=2.0**20))
    state = start()._replace(loss_scale=scale)
    step = jax.vmap(step, in_axes=(None, 0), axis_name="data")
    after, metrics = jax.jit(step)(state, (spoilt, targets))
    for leaf in jax.tree.leaves((after.params, after.loss_scale)):
        np.testing.assert_array_equal(leaf[0], leaf[1])
    assert metrics["nonfinite"].tolist()[0] == metrics["nonfinite"].tolist()[1]


@pytest.mark.parametrize("least", [None, 4.0])
def test_the_rule_is_that_of_flax(least):
    theirs = DynamicScale(growth_interval=2, scale=8.0, minimum_scale=least)
    ours, seen = begun(theirs), []
    for finite in [1, 1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0]:
        value = jnp.where(finite, 1.0, jnp.nan)
        theirs = theirs.value_and_grad(lambda w: w * value)(1.0).dynamic_scale  # noqa: B023
        ours = adjusted(ours, jnp.bool_(finite))
        assert (float(ours.scale), int(ours.fin_steps)) == (theirs.scale, theirs.fin_steps)
        seen.append(float(ours.scale))
    assert max(seen) == 32 and min(seen) == (least or 2)


def test_the_doctor_looks_at_scaled_gradients():
    variables = {"params": start().params, "batch_stats": {}}
    look = stepping(jnp.float16).diagnose  # pyright: ignore[reportFunctionMemberAccess]
    assert look(variables, DATA) and not look(variables, DATA, loss_scale=2.0**16)


class Config(RunFolder):
    """Anything with fields."""


@pytest.mark.slow
def test_a_resumed_run_has_the_bits_of_an_unbroken_one(tmp_path):
    feed = training.in_memory(DATA, 4)
    evaluate = training.evaluation(Net(), loss, metrics=nothing)

    def run(name, epochs, resume=False):
        folder = RunFolder.create(tmp_path / name, Config(tmp_path), resume=resume)
        return fit(
            *("Net", start(SCALE), stepping(jnp.float16), evaluate, feed, DATA),
            **{"epochs": epochs, "folder": folder, "score": least_loss, "diagnose": False},
        )

    whole = run("whole", 3)
    run("cut", 2)
    resumed = run("cut", 3, resume=True)
    for a, b in zip(jax.tree.leaves(whole.last), jax.tree.leaves(resumed.last), strict=True):
        assert (a == b).all()
    assert whole.history["train_loss_scale"] == resumed.history["train_loss_scale"]
    assert int(whole.last.loss_scale.fin_steps) == 1


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    folder = RunFolder.create(tmp_path / "run", Config(tmp_path))
    bad = INPUTS, np.where(np.arange(16)[:, None] == 5, np.nan, TARGETS)
    step, evaluate = stepping(jnp.float16), training.evaluation(Net(), loss, metrics=nothing)
    with pytest.raises(DivergedError, match="loss of Net is not finite at step"):
        fit(
            *("Net", start(SCALE), step, evaluate, training.in_memory(bad, 4), DATA),
            **{"epochs": 3, "folder": folder, "diagnose": False},
        )


def test_what_is_no_scale_is_refused():
    with pytest.raises(InputError, match=r"loss_scale must be a DynamicScale of Flax, not 1024\.0"):
        start(1024.0)
