"""Steps, epochs and evaluation are pure functions of the state and the data."""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.layers.normalization import batch_norm
from nnlab.training import (
    State,
    cross_entropy,
    evaluation,
    in_batches,
    init,
    mean_squared_error,
    squared_hinge,
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


class Plain(nn.Module):
    """No BatchNorm, no Dropout."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return nn.Dense(3)(x.reshape(len(x), -1))


def noise(key, images):
    return images + 0.1 * jax.random.normal(key, images.shape)


SGD = optax.sgd(0.1, 0.9)
STATE = init(jax.random.key(0), Net(), SGD, IMAGES)
STEP = jax.jit(train_step(Net(), SGD, augment=noise))


def bits(state: State) -> Any:
    return jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key)))


def test_init_is_a_function_of_the_key_and_the_shape():
    again = init(jax.random.key(0), Net(), SGD, jnp.full_like(IMAGES, jnp.nan))
    chex.assert_trees_all_equal(bits(again), bits(STATE))
    other = init(jax.random.key(1), Net(), SGD, IMAGES)
    assert (other.key != STATE.key) and STATE.key != jax.random.key(0)
    kernels = [s.params["Dense_0"]["kernel"] for s in (STATE, other)]
    assert (kernels[0] != kernels[1]).all()
    assert STATE.step.dtype == jnp.int32 and STATE.step == 0
    assert init(jax.random.key(0), Plain(), SGD, IMAGES).batch_stats == {}


def test_a_step_is_pure():
    before = bits(STATE)
    first, second = STEP(STATE, DATA), STEP(STATE, DATA)
    chex.assert_trees_all_equal(bits(first[0]), bits(second[0]))
    assert first[1] == second[1]
    chex.assert_trees_all_equal(bits(STATE), before)
    assert first[0].step == 1
    for name in ("params", "batch_stats", "opt_state"):
        for a, b in zip(
            *(jax.tree.leaves(getattr(s, name)) for s in (STATE, first[0])), strict=True
        ):
            assert (a != b).any(), name
    chex.assert_trees_all_equal_shapes_and_dtypes(first[0], STATE)


@pytest.mark.parametrize("loss", [cross_entropy, squared_hinge])
def test_a_step_follows_the_gradient_and_reports_training_mode_before_it(loss):
    model: Any = Net(dropout=0.0)
    state = STATE._replace(opt_state=optax.sgd(0.5).init(STATE.params))
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


def batches(state: State, size: int, batch_size: int) -> tuple[State, np.ndarray]:
    """What an epoch over images 0 to size - 1 takes in which step; images and labels in pairs."""

    def step(state, batch):
        return state._replace(step=state.step + 1), {"image": batch[0][:, 0], "label": batch[1]}

    numbers = jnp.arange(size)
    after, seen = train_epoch(step, batch_size)(state, (numbers[:, None], numbers))
    np.testing.assert_array_equal(seen["image"], seen["label"])
    return after, np.asarray(seen["label"])


def test_each_epoch_has_its_own_order_without_repetition():
    state, orders = STATE, []
    for _ in range(4):
        state, seen = batches(state, 23, 5)
        assert seen.shape == (4, 5)  # three are left out
        assert len(set(seen.flat)) == 20
        orders.append(seen.ravel().tolist())
    assert state.step == 16 and state.key == STATE.key
    assert len({tuple(order) for order in orders}) == 4
    assert len({frozenset(order) for order in orders}) > 1  # others are left out
    assert sorted(batches(STATE, 23, 23)[1].flat) == list(range(23))
    assert batches(STATE, 23, 5)[1].ravel().tolist() == orders[0]
    assert batches(STATE._replace(key=jax.random.key(7)), 23, 5)[1].ravel().tolist() != orders[0]


def test_an_epoch_is_the_loop_over_its_batches():
    epoch = train_epoch(train_step(Net(), SGD, augment=noise), batch_size=5)
    whole, looped = STATE, STATE
    for _ in range(2):
        _, order = batches(looped, 23, 5)
        whole, metrics = epoch(whole, DATA)
        for number, chosen in enumerate(order):
            looped, expected = STEP(looped, (IMAGES[chosen], LABELS[chosen]))
            for name, value in expected.items():
                assert float(metrics[name][number]) == pytest.approx(float(value), abs=1e-5)
    # The compiler may fuse a loop's body otherwise than a program of its own, which rounds
    # otherwise: 2^-24 of numbers near 1 in some ten operations of eight steps.
    chex.assert_trees_all_close(bits(whole), bits(looped), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 5, 23, 500])
def test_evaluation_covers_every_image_once(batch_size):
    """Whole numbers in, so that the sums are exact in whichever order."""
    rng = np.random.default_rng(1)
    images, kernel = rng.integers(-3, 4, (23, 16)), rng.integers(-3, 4, (16, 3))
    params = {"Dense_0": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.ones(3)}}
    state = State(jnp.int32(0), params, {}, (), jax.random.key(0))
    data = jnp.asarray(images, jnp.float32).reshape(23, 4, 4, 1), LABELS
    metrics = evaluation(Plain(), mean_squared_error, batch_size)(state, data)
    logits = images @ kernel + 1
    squares = np.square(logits - np.eye(3)[LABELS])
    assert float(metrics["loss"]) == pytest.approx(squares.mean(), rel=2**-22)
    assert float(metrics["accuracy"]) == pytest.approx(
        np.mean(logits.argmax(1) == LABELS), rel=2**-22
    )


def test_evaluation_mode_sees_each_image_alone_and_draws_nothing():
    state = STATE
    for _ in range(3):
        state, _ = STEP(state, DATA)
    evaluate = evaluation(Net(), batch_size=4)
    whole = evaluate(state, DATA)
    alone = [evaluate(state, (IMAGES[i : i + 1], LABELS[i : i + 1])) for i in range(23)]
    for name, value in whole.items():
        # Rows of a matrix product may round otherwise in another batch.
        assert float(value) == pytest.approx(np.mean([m[name] for m in alone]), rel=1e-5)
    other = evaluate(state._replace(key=jax.random.key(9)), DATA)
    assert whole == other


@pytest.mark.parametrize("batch_size", [1, 5, 23, 500])
def test_in_batches_is_the_function_with_a_bound_on_its_input(batch_size):
    sizes = []

    def fn(images):
        sizes.append(len(images))
        return {"largest": images.max((1, 2, 3)), "twice": (2 * images, images[:, 0])}

    chex.assert_trees_all_equal(in_batches(fn, IMAGES, batch_size), fn(IMAGES))
    assert max(sizes[:-1]) <= batch_size
