"""Steps are pure functions of the state and the batch."""

import functools
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.errors import InputError
from nnlab.layers.normalization import batch_norm
from nnlab.training import (
    State,
    cross_entropy,
    evaluation,
    init,
    train_epoch,
    train_step,
)

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.normal(size=(23, 4, 4, 1)), jnp.float32)
LABELS = jnp.asarray(RNG.integers(0, 3, 23), jnp.int32)
DATA = IMAGES, LABELS


class Net(nn.Module):
    """BatchNorm makes the batch matter, Dropout the key."""

    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = batch_norm(train)(nn.Dense(8)(x.reshape(len(x), -1)))
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
        return nn.Dense(3)(x)


def noise(key, images):
    return images + 0.1 * jax.random.normal(key, images.shape)


SGD = optax.sgd(0.1, 0.9)
STEP = jax.jit(train_step(Net(), SGD, augment=noise))


@functools.cache
def start() -> State:
    return init(jax.random.key(0), Net(), SGD, IMAGES)


def bits(state: State) -> Any:
    return jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key)))


def test_init_is_a_function_of_the_key_and_the_shape():
    again = init(jax.random.key(0), Net(), SGD, jnp.full_like(IMAGES, jnp.nan))
    chex.assert_trees_all_equal(bits(again), bits(start()))
    other = init(jax.random.key(1), Net(), SGD, IMAGES)
    assert (other.key != start().key) and start().key != jax.random.key(0)
    kernels = [s.params["Dense_0"]["kernel"] for s in (start(), other)]
    assert (kernels[0] != kernels[1]).all()
    assert start().step.dtype == jnp.int32 and start().step == 0


def test_a_step_is_pure():
    before = bits(start())
    first, second = STEP(start(), DATA), STEP(start(), DATA)
    chex.assert_trees_all_equal(bits(first[0]), bits(second[0]))
    assert first[1] == second[1]
    chex.assert_trees_all_equal(bits(start()), before)
    assert first[0].step == 1
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(bits(first[0])), strict=True):
        assert a is before.key or (a != b).any()
    chex.assert_trees_all_equal_shapes_and_dtypes(first[0], start())


@pytest.mark.parametrize(
    "loss", [cross_entropy, lambda logits, labels: (logits.sum(-1) - labels).var()]
)
def test_a_step_follows_the_gradient_and_reports_training_mode_before_it(loss):
    model: Any = Net(dropout=0.0)
    state = start()._replace(opt_state=optax.sgd(0.5).init(start().params))
    after, metrics = jax.jit(train_step(model, optax.sgd(0.5), loss))(state, DATA)

    @jax.jit
    def objective(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, _ = model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
        return loss(logits, LABELS), logits

    (value, logits), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    # The same float32 operations in two programs; fused, they may round otherwise.
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-6)
    accuracy = float(jnp.mean(logits.argmax(-1) == LABELS))
    assert float(metrics["accuracy"]) == pytest.approx(accuracy, rel=1e-6)
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, state.params, grads)
    chex.assert_trees_all_close(after.params, expected, atol=1e-6)


class Probe(nn.Module):
    """Logits that show what was drawn from the two keys of a step."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        weight = self.param("weight", nn.initializers.ones, ())
        drawn = jax.random.uniform(self.make_rng("dropout"))
        return weight * jnp.broadcast_to(jnp.stack([x.mean(), drawn]), (len(x), 2))


@pytest.mark.parametrize("drawn", [0, 1])
def test_augmentation_and_dropout_draw_anew_each_step_and_the_key_stays(drawn):
    still = optax.set_to_zero()
    step = jax.jit(
        train_step(
            Probe(),
            still,
            loss=lambda logits, labels: logits[0, drawn],
            augment=lambda key, images: jax.random.uniform(key, images.shape),
        )
    )

    def values(key):
        state, seen = init(key, Probe(), still, IMAGES), []
        for _ in range(8):
            after, metrics = step(state, DATA)
            assert after.key == state.key
            state = after
            seen.append(float(metrics["loss"]))
        return seen

    first = values(jax.random.key(0))
    assert len({*first, *values(jax.random.key(1))}) == 16
    assert values(jax.random.key(0)) == first


def test_accumulation_is_the_gradient_of_the_whole_batch():
    """Without BatchNorm and dropout; with BatchNorm its statistics are means over the parts."""

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
            return nn.Dense(3)(nn.relu(nn.Dense(8)(x.reshape(len(x), -1))))

    batch = IMAGES[:20], LABELS[:20]
    state = init(jax.random.key(0), Plain(), SGD, IMAGES)
    whole, expected = jax.jit(train_step(Plain(), SGD))(state, batch)
    for parts in (2, 5, 20):
        after, metrics = jax.jit(train_step(Plain(), SGD, accumulate=parts))(state, batch)
        # Gradients of sums of 20 numbers below 1, in another order: 20 x 2^-24 and less of them.
        chex.assert_trees_all_close(after.params, whole.params, atol=2e-6)
        chex.assert_trees_all_close(metrics, expected, atol=2e-6)

    norm: Any = Net(dropout=0.0)
    four = jax.jit(train_step(norm, SGD, accumulate=4))(start(), batch)[0]
    parts = [
        jax.jit(train_step(norm, SGD))(start(), (batch[0][i::4], batch[1][i::4]))[0].batch_stats
        for i in range(4)
    ]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 4, *parts)
    chex.assert_trees_all_close(four.batch_stats, mean, atol=1e-6)


class Pair(nn.Module):
    """Two outputs: classes of every example, and a number."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        x = x.reshape(len(x), -1)
        return {"classes": nn.Dense(3)(x), "number": nn.Dense(1)(x)[:, 0]}


def pair_loss(outputs, labels):
    numbers = jnp.mean(jnp.square(outputs["number"] - labels["number"]))
    return numbers + cross_entropy(outputs["classes"], labels["class"])


def pair_metrics(outputs, labels):
    return {
        "hits": jnp.mean(outputs["classes"].argmax(-1) == labels["class"]),
        "error": jnp.mean(jnp.abs(outputs["number"] - labels["number"])),
    }


def test_outputs_and_labels_may_be_trees_and_metrics_are_those_given():
    labels = {"class": LABELS[:20], "number": IMAGES[:20, 0, 0, 0]}
    data = IMAGES[:20], labels
    state = init(jax.random.key(0), Pair(), SGD, IMAGES)
    outputs = Pair().apply({"params": state.params}, data[0])
    wanted = {"loss": pair_loss(outputs, labels), **pair_metrics(outputs, labels)}
    for parts in (1, 4):
        step = train_step(Pair(), SGD, pair_loss, metrics=pair_metrics, accumulate=parts)
        after, metrics = jax.jit(step)(state, data)
        assert metrics.keys() == {"loss", "hits", "error", "nonfinite"}
        # Means of 20 numbers of about 1 in another order.
        chex.assert_trees_all_close({key: metrics[key] for key in wanted}, wanted, atol=2e-6)
        assert after.step == 1
    tested = evaluation(Pair(), pair_loss, 7, metrics=pair_metrics)(state, data)
    chex.assert_trees_all_close(tested, wanted, atol=2e-6)
    # Labels are drawn with their images: of a network that has the label in its input, no error.
    _, metrics = train_epoch(_echo, 5)(state, (IMAGES[:20], labels))
    assert not metrics["error"].any()


def _echo(state, batch):
    error = jnp.abs(batch[0][:, 0, 0, 0] - batch[1]["number"]).max()
    return state._replace(step=state.step + 1), {"error": error}


def test_accumulation_in_parts_that_do_not_fit_is_refused():
    with pytest.raises(InputError, match=r"^accumulate must be at least 1, not 0\.$"):
        train_step(Net(), SGD, accumulate=0)
    with pytest.raises(
        InputError, match=r"^accumulate must divide the batch of 23 examples, not be 2"
    ):
        train_step(Net(), SGD, accumulate=2)(start(), DATA)
