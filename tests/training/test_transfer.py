"""Training steps that leave parameters alone, and trained arrays in a fresh state."""

import re
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab import kernels
from nnlab.arithmetics import ADDER, FLOAT, Arithmetic
from nnlab.costs import count
from nnlab.errors import InputError
from nnlab.layers.normalization import batch_norm
from nnlab.models import resnet20
from nnlab.optim import (
    adder_recipe,
    average_weights,
    averaged_weights,
    freeze,
)
from nnlab.training import (
    State,
    init,
    leaf_name,
    train_step,
    transfer,
)

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.normal(size=(8, 6, 6, 2)), jnp.float32)
LABELS = jnp.asarray(RNG.integers(0, 3, 8), jnp.int32)
HEAD = re.compile(r"(head|head_norm)/").match


def backbone(path):
    return not HEAD(path)


class Net(nn.Module):
    """Two convolutions, each with BatchNorm, and a classifier with its own."""

    classes: int = 3
    features: int = 4
    arithmetic: Arithmetic = FLOAT

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for i in range(2):
            x = self.arithmetic.conv(self.features, (3, 3), name=f"conv{i}")(x)
            x = nn.relu(batch_norm(train, name=f"norm{i}")(x))
        x = FLOAT.dense(self.classes, name="head")(x.mean((1, 2)))
        return batch_norm(train, name="head_norm")(x)


def variables(model, images=IMAGES):
    """Of the model's shapes, drawn without compiling its initialisers."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.tree.map(lambda s: jnp.asarray(RNG.uniform(0.5, 1.5, s.shape), s.dtype), shapes)


def begin(model, optimizer, images=IMAGES) -> State:
    drawn = variables(model, images)
    opt_state = optimizer.init(drawn["params"])
    zero, key = jnp.zeros((), jnp.int32), jax.random.key(0)
    return State(zero, drawn["params"], drawn["batch_stats"], opt_state, key)


def bits(tree):
    return jax.tree.map(lambda a: np.asarray(a).tobytes(), tree)


def parts(params):
    """What is frozen and what is trained."""
    head = {name: params[name] for name in ("head", "head_norm")}
    return {name: params[name] for name in params if name not in head}, head


def easily_lost(state: State, optimizer) -> State:
    """With -0, to which adding 0 gives 0, and with numbers that arithmetic on a CPU takes for 0."""
    params = dict(state.params)
    for name in parts(params)[0]:
        params[name] = jax.tree.map(
            lambda p: p.at[..., 0].set(-0.0).at[..., 1].set(1e-40), params[name]
        )
    return state._replace(params=params, opt_state=optimizer.init(params))


@pytest.mark.parametrize(
    "around",
    [
        lambda optimizer: optimizer,
        lambda optimizer: optax.chain(optimizer, optax.add_decayed_weights(-0.1)),
        lambda optimizer: optax.apply_if_finite(optax.chain(optax.clip(1.0), optimizer), 3),
    ],
    ids=["plain", "decay outside", "clipped and finite"],
)
def test_frozen_parameters_keep_their_bits(around):
    chex.clear_trace_counter()
    inner = optax.chain(adder_recipe(10), average_weights())
    optimizer = around(freeze(inner, backbone))
    model = Net(arithmetic=ADDER)
    state = start = easily_lost(begin(model, optimizer), optimizer)
    step = jax.jit(chex.assert_max_traces(train_step(model, optimizer), n=1))
    for _ in range(4):
        state, metrics = step(state, (IMAGES, LABELS))
        assert metrics["nonfinite"] == -1
    (frozen, head), (frozen_before, head_before) = parts(state.params), parts(start.params)
    assert bits(frozen) == bits(frozen_before)
    for after, before in zip(jax.tree.leaves(head), jax.tree.leaves(head_before), strict=True):
        assert (after != before).all()
    # Running statistics are no parameters.
    stats = zip(*(jax.tree.leaves(s.batch_stats) for s in (state, start)), strict=True)
    assert all((after != before).all() for after, before in stats)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_others_move_as_they_do_in_full_training(accumulate):
    full, frozen = optax.sgd(0.1), freeze(optax.sgd(0.1), backbone)
    states, start = [], begin(Net(), full)
    for optimizer in (full, frozen):
        state = start._replace(opt_state=optimizer.init(start.params))
        step = jax.jit(train_step(Net(), optimizer, accumulate=accumulate))
        states.append(step(state, (IMAGES, LABELS))[0])
    heads = [parts(state.params)[1] for state in states]
    # The same float32 operations in two programs; fused, they may round otherwise.
    chex.assert_trees_all_close(*heads, rtol=1e-5, atol=1e-6)
    assert bits(parts(states[0].params)[0]) != bits(parts(states[1].params)[0])


def test_devices_exchange_no_gradients_of_the_frozen():
    seen = []

    def combine(grads, axis_name):
        seen.append(
            {jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(grads)}
        )
        return jax.lax.pmean(grads, axis_name)

    optimizer = freeze(optax.sgd(0.1), backbone)
    state = begin(Net(), optimizer)
    step = train_step(Net(), optimizer, axis_name="devices", combine=combine)
    over = jax.vmap(step, (None, 0), axis_name="devices")
    jax.eval_shape(over, state, (IMAGES[None], LABELS[None]))
    (paths,) = seen
    assert paths == {"['head']['kernel']", "['head_norm']['bias']", "['head_norm']['scale']"}


def test_a_number_that_is_not_finite_is_still_named():
    optimizer = freeze(optax.sgd(0.1), backbone)
    state = begin(Net(), optimizer)
    state.params["conv1"]["kernel"] = state.params["conv1"]["kernel"].at[0].set(jnp.nan)
    _, metrics = jax.jit(train_step(Net(), optimizer))(state, (IMAGES, LABELS))
    assert leaf_name(state, int(metrics["nonfinite"])) == "batch_stats['head_norm']['mean']"


def test_frozen_layers_cost_a_forward_pass():
    """Floating-point operations of the compiled programs, all of XLA's own."""
    images, model = jnp.zeros((16, 12, 12, 2)), Net(features=16, arithmetic=ADDER)

    def operations(program: Any) -> float:
        return program.cost_analysis()["flops"]

    def flops(optimizer) -> float:
        state = begin(model, optimizer, images)
        step = jax.jit(train_step(model, optimizer))
        return operations(step.lower(state, (images, jnp.zeros(16, jnp.int32))).compile())

    with kernels.use("xla"):
        forward = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))
        least = operations(forward.lower(variables(model, images), images).compile())
        frozen = flops(freeze(adder_recipe(10), backbone))
        full = flops(adder_recipe(10))
    print(
        f"\nforward {least:,.0f}, frozen {frozen:,.0f}, full {full:,.0f} floating-point operations"
    )
    assert least < frozen < 1.1 * least < 2.5 * least < full


@pytest.mark.parametrize("arithmetic", [FLOAT, ADDER])
def test_of_a_resnet_too(arithmetic):
    """Operations of the traced step; of those of adders, most are additions."""
    model, images = resnet20(arithmetic=arithmetic), jnp.zeros((2, 32, 32, 3))
    labels = jnp.zeros(2, jnp.int32)
    head = re.compile("(Dense_0|BatchNorm_1)/").match

    def operations(fn, *args) -> int:
        counts = count(fn, *args)
        return counts.multiplications["float32"] + counts.additions["float32"]

    def of_step(optimizer) -> int:
        state = jax.eval_shape(lambda key: init(key, model, optimizer, images), jax.random.key(0))
        return operations(train_step(model, optimizer), state, (images, labels))

    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    forward = operations(
        lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]), shapes, images
    )
    frozen = of_step(freeze(adder_recipe(10), lambda path: not head(path)))
    full = of_step(adder_recipe(10))
    print(f"\nforward {forward:,}, frozen {frozen:,}, full {full:,} multiplications and additions")
    assert forward < frozen < 1.02 * forward < 2.5 * forward < full


def trained(classes=5):
    return variables(Net(classes))


def test_transfer_takes_all_but_the_classifier():
    optimizer = freeze(optax.chain(optax.sgd(0.1, 0.9), average_weights()), lambda p: "conv0" in p)
    fresh = begin(Net(), optimizer)
    source = trained()
    state = transfer(source, fresh, optimizer, replace=HEAD)
    (body, head), (stats, head_stats) = parts(state.params), parts(state.batch_stats | {"head": {}})
    assert bits(body) == bits(parts(source["params"])[0])
    assert bits(head) == bits(parts(fresh.params)[1])
    assert bits(stats) == bits(parts(source["batch_stats"] | {"head": {}})[0])
    assert bits(head_stats) == bits(parts(fresh.batch_stats | {"head": {}})[1])
    assert state.step == 0 and state.key == fresh.key
    # The average begins with the parameters taken, not with the fresh ones.
    average = averaged_weights(state.opt_state, state.params)
    assert bits(average["conv1"]) == bits(source["params"]["conv1"])
    chex.assert_trees_all_equal_structs(state, fresh)
    before = bits(source)
    jax.tree.map(lambda a: a.delete(), state.params)  # as a loop does that reuses its memory
    assert bits(source) == before


def test_transfer_of_everything_and_in_the_fresh_dtypes():
    optimizer = optax.sgd(0.1)
    fresh = begin(Net(), optimizer)
    source = jax.tree.map(lambda a: np.asarray(a, np.float64), trained(3))
    state = transfer(source, fresh, optimizer)
    chex.assert_trees_all_equal_dtypes(state, fresh)
    chex.assert_trees_all_equal(state.params, jax.tree.map(jnp.float32, source["params"]))


def without(variables, collection, layer):
    some = {k: v for k, v in variables[collection].items() if k != layer}
    return variables | {collection: some}


@pytest.mark.parametrize(
    ("source", "replace", "words"),
    [
        (trained, None, "head_norm/mean has shape [5] in the trained variables, expected [3]"),
        (trained, re.compile("haed").match, "replace names no array of the model"),
        (lambda: without(trained(), "params", "conv1"), HEAD, "lack conv1/kernel of params"),
        (lambda: without(trained(), "batch_stats", "norm1"), HEAD, "lack norm1/mean of batch_st"),
        (
            lambda: trained() | {"params": trained()["params"] | {"conv9": {"kernel": IMAGES}}},
            HEAD,
            "the model lacks conv9/kernel of params",
        ),
    ],
)
def test_what_does_not_fit_is_named(source, replace, words):
    optimizer = optax.sgd(0.1)
    fresh = begin(Net(), optimizer)
    with pytest.raises(InputError) as caught:
        transfer(source(), fresh, optimizer, replace)
    sentence = str(caught.value)
    assert words in sentence and sentence.endswith(".") and "\n" not in sentence
