"""Training steps that leave parameters alone, and trained arrays in a fresh state."""

import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.arithmetics import ADDER, FLOAT, Arithmetic
from nnlab.costs import count
from nnlab.errors import InputError
from nnlab.layers.normalization import batch_norm
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
INPUTS = RNG.normal(size=(8, 4)).astype(np.float32)
LABELS = RNG.integers(0, 3, 8).astype(np.int32)
HEAD = re.compile(r"(head|head_norm)/").match


def backbone(path):
    return not HEAD(path)


class Net(nn.Module):
    """Two layers, each with BatchNorm, and a classifier with its own."""

    classes: int = 3
    arithmetic: Arithmetic = FLOAT
    norm: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        def normalise(x: jax.Array, name: str) -> jax.Array:
            return batch_norm(train, name=name)(x) if self.norm else x

        for i in range(2):
            x = self.arithmetic.dense(4, name=f"layer{i}")(x)
            x = nn.relu(normalise(x, f"norm{i}"))
        return normalise(FLOAT.dense(self.classes, name="head")(x), "head_norm")


def variables(model):
    """Arrays of the model's shapes, drawn without compiling its initialisers."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), INPUTS)
    drawn = jax.tree.map(lambda s: RNG.uniform(0.5, 1.5, s.shape).astype(s.dtype), shapes)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), drawn)


def begin(model, optimizer) -> State:
    drawn = variables(model)
    opt_state = optimizer.init(drawn["params"])
    zero, key = jnp.zeros((), jnp.int32), jax.random.key(0)
    return State(zero, drawn["params"], drawn.get("batch_stats", {}), opt_state, key)


def bits(tree):
    return jax.tree.map(lambda a: np.asarray(a).tobytes(), tree)


def parts(params):
    """Return the arrays to freeze and the arrays to train."""
    head = {name: params[name] for name in params if name.startswith("head")}
    return {name: params[name] for name in params if name not in head}, head


def easily_lost(state: State, optimizer) -> State:
    """Put in -0, which adding 0 would change, and numbers that arithmetic on a CPU takes for 0."""
    params = dict(state.params)
    for name in parts(params)[0]:
        params[name] = jax.tree.map(np.array, params[name])
        for leaf in jax.tree.leaves(params[name]):
            leaf[..., :2] = -0.0, 1e-40
    return state._replace(params=params, opt_state=optimizer.init(params))


def test_frozen_parameters_keep_their_bits():
    """Also among transformations of all parameters, before `freeze` and after it."""
    chex.clear_trace_counter()
    inner = freeze(optax.chain(adder_recipe(10), average_weights()), backbone)
    chain = optax.chain(optax.clip(1.0), inner, optax.add_decayed_weights(-0.1))
    optimizer = optax.apply_if_finite(chain, 3)
    model = Net(arithmetic=ADDER)
    state = start = easily_lost(begin(model, optimizer), optimizer)
    step = jax.jit(chex.assert_max_traces(train_step(model, optimizer), n=1))
    for _ in range(4):
        state, metrics = step(state, (INPUTS, LABELS))
        assert metrics["nonfinite"] == -1
    (frozen, head), (frozen_before, head_before) = parts(state.params), parts(start.params)
    assert bits(frozen) == bits(frozen_before)
    for after, before in zip(jax.tree.leaves(head), jax.tree.leaves(head_before), strict=True):
        assert np.not_equal(after, before).all()
    # Running statistics are no parameters.
    stats = zip(*(jax.tree.leaves(s.batch_stats) for s in (state, start)), strict=True)
    assert all(np.not_equal(after, before).all() for after, before in stats)


def test_the_others_move_as_they_do_in_full_training():
    full, frozen = optax.sgd(0.1), freeze(optax.sgd(0.1), backbone)
    model = Net(norm=False)  # then the parts of a batch have its gradient
    start = begin(model, full)
    whole, _ = jax.jit(train_step(model, full))(start, (INPUTS, LABELS))
    step = jax.jit(train_step(model, frozen, accumulate=2))
    start = start._replace(opt_state=frozen.init(start.params))
    some, _ = step(start, (INPUTS, LABELS))
    (body, head), (moved, expected) = parts(some.params), parts(whole.params)
    # The same float32 operations in two programs; fused, they may round otherwise.
    chex.assert_trees_all_close(head, expected, rtol=1e-5, atol=1e-6)
    assert bits(body) == bits(parts(start.params)[0]) != bits(moved)
    # A number that is not finite in what is frozen is named all the same.
    start.params["layer1"]["kernel"] = np.full((4, 4), np.nan, np.float32)
    _, metrics = step(start, (INPUTS, LABELS))
    assert leaf_name(start, int(metrics["nonfinite"])) == "loss"


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
    jax.eval_shape(over, state, (INPUTS[None], LABELS[None]))
    (paths,) = seen
    assert paths == {"['head']['kernel']", "['head_norm']['bias']", "['head_norm']['scale']"}


@pytest.mark.parametrize("arithmetic", [FLOAT, ADDER])
def test_frozen_layers_cost_a_forward_pass(arithmetic):
    """Operations of the traced step on layers that dwarf the rest; adders mostly add."""
    model, images = Wide(arithmetic), np.zeros((16, 64), np.float32)

    def operations(fn, *args) -> int:
        counts = count(fn, *args)
        return counts.multiplications["float32"] + counts.additions["float32"]

    def of_step(optimizer) -> int:
        state = jax.eval_shape(lambda key: init(key, model, optimizer, images), jax.random.key(0))
        return operations(train_step(model, optimizer), state, (images, np.zeros(16, np.int32)))

    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    forward = operations(lambda v, x: model.apply(v, x, train=True), shapes, images)
    frozen = of_step(freeze(optax.sgd(0.1), backbone))
    full = of_step(optax.sgd(0.1))
    print(f"\nforward {forward:,}, frozen {frozen:,}, full {full:,} multiplications and additions")
    assert forward < frozen < 1.1 * forward < 2.5 * forward < full


class Wide(nn.Module):
    arithmetic: Arithmetic

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for i in range(2):
            x = self.arithmetic.dense(64, name=f"layer{i}")(x)
        return FLOAT.dense(3, name="head")(x)


def trained(classes=5):
    return variables(Net(classes))


def test_transfer_takes_all_but_the_classifier():
    optimizer = freeze(optax.chain(optax.sgd(0.1, 0.9), average_weights()), lambda p: "layer0" in p)
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
    assert bits(average["layer1"]) == bits(source["params"]["layer1"])
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
        (trained, re.compile("haed").match, "replace matches no array of the model"),
        (lambda: without(trained(), "params", "layer1"), HEAD, "lack layer1/kernel of params"),
        (lambda: without(trained(), "batch_stats", "norm1"), HEAD, "lack norm1/mean of batch_st"),
        (
            lambda: trained() | {"params": trained()["params"] | {"layer9": {"kernel": INPUTS}}},
            HEAD,
            "the model lacks layer9/kernel of params",
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
