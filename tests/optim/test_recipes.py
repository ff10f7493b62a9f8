"""The recipe against SGD written out in float64, and the label of every leaf of every model."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.errors import InputError
from nnlab.models import (
    LeNet5,
    SmallCNN,
)
from nnlab.optim import adder_recipe, deep_recipe, labels

STEPS = 10
SHAPES = {"conv": {"adder_kernel": (3, 3, 2, 4), "bias": (4,)}, "dense": {"kernel": (5, 6)}}


def arrays(rng, scale=1.0):
    return jax.tree.map(
        lambda shape: (scale * rng.normal(size=shape)).astype(np.float32),
        SHAPES,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def trained(optimizer, params, grads):
    """The parameters after each update."""

    @jax.jit
    def step(g, state, params):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    params, grads = jax.tree.map(np.float32, (params, grads))
    state, history = jax.jit(optimizer.init)(params), []
    for g in grads:
        params, state = step(g, state, params)
        history.append(jax.tree.map(np.asarray, params))
    return history


def pytorch_sgd(w, grads, *, eta, nesterov, learning_rate, momentum, weight_decay):
    """torch.optim.SGD and CosineAnnealingLR to 0; `eta` rescales the gradient as adder.py does."""
    w, velocity, history = w.astype(np.float64), 0.0, []
    for step, g in enumerate(grads):
        g = g.astype(np.float64)
        if eta is not None:
            g = g / max(np.linalg.norm(g), 1e-12) * np.sqrt(g.size) * eta
        g = g + weight_decay * w
        velocity = momentum * velocity + g
        direction = g + momentum * velocity if nesterov else velocity
        w = w - learning_rate * 0.5 * (1 + np.cos(np.pi * step / STEPS)) * direction
        history.append(w)
    return history


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"learning_rate": 0.5, "momentum": 0.5, "weight_decay": 0.2}]
)
def test_equals_pytorch_sgd_with_the_rate_before_the_decay(nesterov, options):
    rng = np.random.default_rng(0)
    params = arrays(rng)
    # Decay is at least 5e-4 of it a step, and the gradients of adder layers are tiny.
    grads = [arrays(rng, scale=1e-3) for _ in range(STEPS)]
    history = trained(adder_recipe(STEPS, nesterov=nesterov, **options), params, grads)
    published = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    for layer, name in (("conv", "adder_kernel"), ("conv", "bias"), ("dense", "kernel")):
        expected = pytorch_sgd(
            params[layer][name],
            [g[layer][name] for g in grads],
            eta=0.2 if name == "adder_kernel" else None,
            nesterov=nesterov,
            **(published | options),
        )
        for step, (ours, theirs) in enumerate(zip(history, expected, strict=True)):
            # About ten roundings of 2^-24 a step of numbers up to 4.
            np.testing.assert_allclose(
                ours[layer][name], theirs, rtol=0, atol=10 * (step + 1) * 4 * 2**-24
            )


def test_weight_decay_is_not_rescaled():
    w = np.array([1.0, -2.0])
    params = {"adder_kernel": w, "kernel": w}
    zero = jax.tree.map(np.zeros_like, params)
    after = trained(adder_recipe(STEPS, 0.5, weight_decay=0.25), params, [zero])[0]
    for leaf in after.values():
        assert leaf.tolist() == [1 - 0.5 * 0.25, -2 + 0.5 * 0.25 * 2]


def test_another_rate_for_adder_kernels():
    params = {"adder_kernel": np.zeros(2), "kernel": np.zeros(2)}
    g = {"adder_kernel": np.ones(2), "kernel": np.ones(2)}
    after = trained(adder_recipe(STEPS, 0.5, rate=optax.scale(100.0)), params, [g])[0]
    assert after["adder_kernel"].tolist() == [-50, -50] and after["kernel"].tolist() == [-0.5, -0.5]


def test_binary_kernels_follow_adam_until_they_are_clipped():
    rng = np.random.default_rng(0)
    params = {"layer": {"binary_kernel": rng.uniform(-0.5, 0.5, (4, 5)).astype(np.float32)}}
    grads = [jax.tree.map(lambda w: rng.normal(size=w.shape).astype(np.float32), params)] * STEPS
    ours = trained(adder_recipe(STEPS, binary_learning_rate=0.01), params, grads)
    adam = trained(optax.adam(optax.cosine_decay_schedule(0.01, STEPS)), params, grads)
    # p + ((p + u) - p) may differ from p + u by a rounding, 2^-24 of numbers below 1, a step.
    chex.assert_trees_all_close(ours, adam, rtol=0, atol=STEPS * 2**-24)
    assert np.abs(adam[-1]["layer"]["binary_kernel"]).max() < 1

    ours = trained(adder_recipe(STEPS, binary_learning_rate=0.5), params, grads)
    free = trained(optax.adam(optax.cosine_decay_schedule(0.5, STEPS)), params, grads)
    assert np.abs(free[-1]["layer"]["binary_kernel"]).max() > 1
    largest = [np.abs(p["layer"]["binary_kernel"]).max() for p in ours]
    assert max(largest) == 1


def test_exponents_and_signs_of_shifts_follow_radam_without_decay():
    names = ("shift_exponent_kernel", "shift_sign_kernel")
    params = {"layer": {name: np.full((2, 3), 0.5, np.float32) for name in names}}
    rng = np.random.default_rng(0)
    grads = [jax.tree.map(lambda w: rng.normal(size=w.shape).astype(np.float32), params)] * STEPS
    cases: Any = (({}, 0.01), ({"shift_learning_rate": 0.5}, 0.5))
    for options, rate in cases:
        ours = trained(adder_recipe(STEPS, weight_decay=0.5, **options), params, grads)
        radam = trained(optax.radam(optax.cosine_decay_schedule(rate, STEPS)), params, grads)
        chex.assert_trees_all_close(ours, radam, rtol=0, atol=STEPS * 2**-24)  # compiled otherwise


def test_does_not_recompile():
    optimizer = adder_recipe(STEPS)
    params = {"a": {"adder_kernel": jnp.ones(3)}, "b": {"binary_kernel": jnp.ones(3)}}
    update = jax.jit(chex.assert_max_traces(optimizer.update, n=1))
    state = optimizer.init(params)
    for _ in range(3):
        _, state = update(params, state, params)


@pytest.mark.parametrize("name", ["adder_kernel", "binary_kernel", "kernel"])
def test_minimises_a_parabola(name):
    target = jnp.array([0.5, -0.25, 0.75])
    steps = 400
    optimizer = adder_recipe(steps, weight_decay=0.0, binary_learning_rate=0.05)

    def step(carry, _):
        params, state = carry
        g = jax.grad(lambda p: jnp.sum(jnp.square(p[name] - target)))(params)
        updates, state = optimizer.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    params: Any = {name: jnp.zeros(3)}
    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=steps)
    np.testing.assert_allclose(params[name], target, atol=1e-3)


def test_labels():
    names = {"adder_kernel": "adder", "shift_kernel": "shift", "kernel": "float"}
    names |= {"adder_scale": "float", "kernel_adder": "float", "bias": "float"}
    params = {"Layer_0": {"inner": dict.fromkeys(names, jnp.zeros(1))}}
    assert labels(params) == {"Layer_0": {"inner": names}}


@pytest.mark.parametrize(
    ("arithmetic", "prefix"), [(FLOAT, "-"), (ADDER, "Adder"), (BINARY, "Binary")]
)
@pytest.mark.parametrize("model", [LeNet5, SmallCNN])
def test_every_leaf_of_every_model_has_its_label(model, arithmetic, prefix):
    """The name of the layer decides for weights; biases and normalisation are float."""
    network = model(arithmetic=arithmetic, first=arithmetic, classifier=arithmetic)
    params = jax.eval_shape(
        network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    )["params"]
    kinds = set()
    for path, label in jax.tree_util.tree_leaves_with_path(labels(params)):
        layer, leaf = path[-2].key, path[-1].key
        own = layer.startswith(prefix) and leaf != "bias"
        assert label == (prefix.lower() if own else "float"), path
        kinds.add(label)
    assert kinds == ({"float"} if arithmetic is FLOAT else {"float", prefix.lower()})


def test_a_schedule_takes_the_place_of_a_rate():
    def halves(rate):
        return lambda count: rate * 0.5**count

    params = {"adder_kernel": np.zeros(2), "binary_kernel": np.zeros(2), "kernel": np.zeros(2)}
    grads = [jax.tree.map(np.ones_like, params)] * 3
    options: Any = {"momentum": 0.0, "weight_decay": 0.0, "binary_learning_rate": halves(0.25)}
    history = trained(adder_recipe(STEPS, halves(0.5), **options), params, grads)
    # Steps of SGD 0.5, 0.25, 0.125; times 0.2 for adder kernels. Adam's are its rate, as long as
    # gradients are equal, 1e-8 and roundings apart.
    for step, sums in enumerate((0.5, 0.75, 0.875)):
        after = history[step]
        assert after["kernel"].tolist() == [-sums] * 2
        assert after["adder_kernel"].tolist() == pytest.approx([-0.2 * sums] * 2, rel=16 * 2**-24)
        assert after["binary_kernel"].tolist() == pytest.approx([-0.5 * sums] * 2, rel=1e-5)


@pytest.mark.parametrize("steps", [0, -1, 1.5, None])
def test_steps_are_checked(steps):
    for recipe in (adder_recipe, deep_recipe):
        with pytest.raises(InputError, match=f"^steps must be a positive integer, not {steps}\\.$"):
            recipe(steps)


def test_clipping_before_the_recipe_measures_all_leaves_and_spares_adder_kernels():
    params = {"adder_kernel": np.zeros(2), "kernel": np.zeros(2)}
    g = {"adder_kernel": np.array([0.0, 4.0]), "kernel": np.array([3.0, 0.0])}  # norm 5
    recipe = adder_recipe(STEPS, 1.0, weight_decay=0.0)
    clipped = trained(optax.chain(optax.clip_by_global_norm(1.0), recipe), params, [g])[0]
    assert clipped["kernel"].tolist() == pytest.approx([-3 / 5, 0], rel=4 * 2**-24)  # not -1
    free = trained(recipe, params, [g])[0]
    expected = free["adder_kernel"].tolist()
    assert clipped["adder_kernel"].tolist() == pytest.approx(expected, rel=8 * 2**-24)

    # Number by number the direction changes, and so do adder kernels.
    g = {"adder_kernel": np.array([3.0, 4.0]), "kernel": np.array([3.0, 0.5])}
    clipped = trained(optax.chain(optax.clip(1.0), recipe), params, [g])[0]
    assert clipped["kernel"].tolist() == [-1, -0.5]
    assert clipped["adder_kernel"].tolist() == pytest.approx([-0.2, -0.2], rel=8 * 2**-24)


def test_clipping_inside_a_partition_would_measure_a_part():
    params = {"adder_kernel": jnp.zeros(2), "kernel": jnp.zeros(2)}
    g = {"adder_kernel": jnp.array([0.0, 4.0]), "kernel": jnp.array([3.0, 0.0])}
    parts: Any = {"adder": optax.identity(), "float": optax.clip_by_global_norm(1.0)}

    @jax.jit
    def updates(g) -> Any:
        both = optax.partition(parts, labels)
        return both.update(g, both.init(params))[0]

    inside = updates(g)
    assert inside["kernel"].tolist() == pytest.approx([1, 0], rel=4 * 2**-24)  # norm 3, not 5


def test_kinds_that_a_network_has_not_take_no_place_in_its_state():
    def parts(name):
        state: Any = adder_recipe(STEPS).init({name: jnp.ones(3)})
        return set(state.inner_states)

    # What checkpoints of version 0.1.0 hold.
    assert parts("kernel") == parts("adder_kernel") == {"float", "adder", "binary"}
    assert parts("shift_sign_kernel") == {"float", "adder", "binary", "shift"}


def test_the_recipe_of_deep_networks_is_clipped_adam_and_each_kind_its_own():
    rng = np.random.default_rng(0)
    names = ("kernel", "bias", "adder_kernel", "binary_kernel", "shift_exponent_kernel")
    params = {name: rng.uniform(-0.5, 0.5, (3, 4)).astype(np.float32) for name in names}
    grads = [
        {name: scale * rng.normal(size=(3, 4)).astype(np.float32) for name in names}
        for scale in (1e-3, 10.0, 1e-2)  # the norm of the second is far above 1
    ]
    norms = [
        np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in gs.values())) for gs in grads
    ]
    clipped = [
        jax.tree.map(lambda g, n=n: (g / max(1, n)).astype(np.float32), gs)
        for gs, n in zip(grads, norms, strict=True)
    ]
    ours = trained(deep_recipe(STEPS, 0.01), params, grads)
    float32 = {name: params[name] for name in names[:2]}
    adam = trained(
        optax.adam(optax.cosine_decay_schedule(0.01, STEPS)),
        float32,
        [{name: g[name] for name in float32} for g in clipped],
    )
    own = trained(adder_recipe(STEPS, weight_decay=0.0), params, clipped)
    for step, after in enumerate(ours):
        for name in names:
            expected = (adam if name in float32 else own)[step][name]
            # A step of at most 0.2 is off by a few roundings of the norm and of what follows.
            np.testing.assert_allclose(after[name], expected, rtol=0, atol=2e-6)
    unclipped = trained(deep_recipe(STEPS, 0.01, clip=1e6), params, grads)
    assert np.abs(unclipped[-1]["kernel"] - ours[-1]["kernel"]).max() > 1e-3


@pytest.mark.parametrize("name", ["adder_kernel", "kernel"])
def test_the_recipe_of_deep_networks_minimises_a_parabola_in_one_program(name):
    target, steps = np.array([0.5, -0.25, 0.75], np.float32), 400
    optimizer = deep_recipe(steps, 0.05)
    chex.clear_trace_counter()
    update = jax.jit(chex.assert_max_traces(optimizer.update, n=1))
    params: Any = {name: np.zeros(3, np.float32)}
    state = jax.jit(optimizer.init)(params)
    for _ in range(steps):
        updates, state = update({name: 2 * (params[name] - target)}, state, params)
        params = jax.tree.map(np.add, params, jax.tree.map(np.asarray, updates))
    np.testing.assert_allclose(params[name], target, atol=1e-3)


@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan")])
def test_a_norm_to_clip_at_is_positive(clip):
    with pytest.raises(InputError, match=rf"^clip must be a positive number, not {clip}\.$"):
        deep_recipe(STEPS, clip=clip)
