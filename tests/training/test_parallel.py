"""One step compiled in three ways for several simulated devices, against one device.

In float64. A single step on two devices is compared in the fast suite; twenty steps of a network
with kinks on up to eight devices in the slow one. What those may differ by is derived from the
network itself: a step sums at most 576 numbers (the pixels of a batch), each sum in two orders
differs by at most 576 × 2^-53 of its terms, and what such a difference in the first step has grown
to after twenty is measured, by a training that starts that much aside (times a million, so that it
is seen); it happens in each of the twenty.
"""

import os
import subprocess
import sys

import pytest

TWO_DEVICES = """
import contextlib
import flax.linen as nn, jax, jax.numpy as jnp, numpy as np, optax
from nnlab.data import Stream, to_device
from nnlab.errors import InputError
from nnlab.training import (
    State, data_mesh, evaluation, in_memory, init, parallel, streamed, train_step
)

jax.config.update("jax_enable_x64", True)
devices, mesh = jax.devices(), data_mesh()
assert len(devices) == mesh.size == 2
by_example = jax.NamedSharding(mesh, parallel.BY_IMAGE)

class Net(nn.Module):
    axis_name: str | None = None

    @nn.compact
    def __call__(self, inputs, train=False):
        x = jnp.where(inputs["known"][:, None], inputs["values"], 0)
        x = nn.Dense(3, param_dtype=jnp.float64)(x)
        norm = nn.BatchNorm(momentum=0.9, axis_name=self.axis_name, param_dtype=jnp.float64)
        x = norm(x, use_running_average=not train)
        return nn.Dense(4, param_dtype=jnp.float64)(jnp.tanh(x))

rng = np.random.default_rng(0)
inputs = {"values": rng.normal(size=(13, 2)), "known": rng.random(13) < 0.7}
data = inputs, rng.integers(0, 4, 13)
batch = jax.tree.map(lambda a: a[:8], data)
sgd = optax.sgd(0.5)
state = init(jax.random.key(0), Net(), sgd, inputs)
state = state._replace(batch_stats=jax.tree.map(np.float64, state.batch_stats))

def assert_close(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)  # sums of 8 float64 numbers near 1

whole, parts = train_step(Net(), sgd), train_step(Net(), sgd, axis_name="data")
alike = train_step(Net("data"), sgd, axis_name="data")
# A step in two parts takes every other example, devices take one half each.
turns = jax.tree.map(lambda a: a.reshape(2, 4, *a.shape[1:]).swapaxes(0, 1).reshape(a.shape), batch)
one = jax.jit(whole)(state, batch)
halves = jax.jit(train_step(Net(), sgd, accumulate=2))(state, turns)
kernels = [np.asarray(state.params["Dense_0"]["kernel"]) for state, _ in (one, halves)]
assert np.abs(kernels[0] - kernels[1]).max() > 1e-3  # what the choice of statistics makes
placed = parallel.shard(batch, mesh)
assert placed[1].addressable_shards[1].data.tolist() == batch[1][4:].tolist()
for step, given, expected in (
    (parallel.on_mesh(whole, mesh), placed, one),
    (parallel.per_device(parts, mesh), batch, halves),
    (parallel.pmapped(alike), parallel.split(batch, 2), one),
):
    after, metrics = step(state, given)
    for got, value in ((metrics, expected[1]), (after[1:3], expected[0][1:3])):
        assert_close(got, value)
    assert after.step == 1 and after.key == state.key
    assert len(after.step.sharding.device_set) == 2

# One example is left over of thirteen, and padded to two.
got = evaluation(Net(), batch_size=4, mesh=mesh)(*parallel.replicate((state, data), mesh))
assert_close(got, evaluation(Net())(state, data))

# The batches of a feed are those of one device, each device's rows in their order.
class Rows:
    def __len__(self):
        return 13

    def __getitem__(self, index):
        return jax.tree.map(lambda a: a[index], data)

def record(state, batch):
    leaves = enumerate(jax.tree.leaves(batch))
    return state._replace(step=state.step + 1), {str(number): leaf for number, leaf in leaves}

def seen(feed):
    start = parallel.replicate(State(jnp.int32(0), {}, {}, (), jax.random.key(0)), mesh)
    with feed.compile(record, start, mesh) as advance:
        return jax.tree.leaves(advance(start, 2)[1])

stream = Stream(Rows(), 4, seed=1)
with contextlib.closing(stream.batches()) as host:
    first, second = next(host), next(host)
order_key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 0)
order = np.asarray(jax.random.permutation(order_key, 13))[:8].reshape(2, 4)
for a, b in zip(seen(in_memory(data, 4)), jax.tree.leaves(data), strict=True):
    np.testing.assert_array_equal(a, b[order])
for a, *b in zip(seen(streamed(stream)), *map(jax.tree.leaves, (first, second)), strict=True):
    np.testing.assert_array_equal(a, b)
with contextlib.closing(to_device(stream.batches(), by_example)) as on_devices:
    for a, b in zip(*map(jax.tree.leaves, (next(on_devices), first)), strict=True):
        assert a.sharding == by_example and a.dtype == b.dtype
        for shard, rows in zip(a.addressable_shards, (b[:2], b[2:]), strict=True):
            np.testing.assert_array_equal(shard.data, rows)

odd = jax.tree.map(lambda a: a[:7], batch)
for refused in (
    lambda: parallel.on_mesh(whole, mesh)(state, odd),
    lambda: parallel.per_device(parts, mesh)(state, odd),
    lambda: parallel.shard(odd, mesh),
    lambda: parallel.split(odd, 2),
):
    try:
        refused()
    except InputError as error:
        assert str(error) == "batch_size must be a multiple of the 2 devices, not 7.", error
    else:
        raise AssertionError("nothing was refused")
"""

SETUP = """
import re, sys
import flax.linen as nn, jax, jax.numpy as jnp, numpy as np, optax
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.errors import InputError
from nnlab.optim import adder_recipe
from nnlab.training import cross_entropy, evaluation, init, parallel, train_step, train_steps

jax.config.update("jax_enable_x64", True)
assert jax.device_count() == 8
STEPS, IMAGES = 20, 16
ARITHMETIC = {"adder": ADDER, "float": FLOAT}[sys.argv[1]]

class Net(nn.Module):
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train=False):
        for _ in range(2):
            x = ARITHMETIC.conv(3, (3, 3), param_dtype=jnp.float64)(x)
            x = nn.BatchNorm(
                not train, momentum=0.9, axis_name=self.axis_name, param_dtype=jnp.float64
            )(x)
            x = nn.relu(x)
        x = nn.Dense(4, param_dtype=jnp.float64)(x.mean((1, 2)))
        return x

rng = np.random.default_rng(0)
BATCHES = [
    (rng.normal(size=(IMAGES, 6, 6, 2)), rng.integers(0, 4, IMAGES).astype(np.int32))
    for _ in range(STEPS)
]
OPTIMIZER = adder_recipe(STEPS, 0.05)
START = init(jax.random.key(0), Net(), OPTIMIZER, BATCHES[0][0])
START = START._replace(batch_stats=jax.tree.map(jnp.float64, START.batch_stats))
WHOLE = train_step(Net(), OPTIMIZER)
PARTS = train_step(Net(), OPTIMIZER, axis_name="data")
ALIKE = train_step(Net(axis_name="data"), OPTIMIZER, axis_name="data")

def trained(step, state=START, cut=lambda batch: batch):
    for batch in BATCHES:
        state, metrics = step(state, cut(batch))
        assert metrics["nonfinite"] == -1 and metrics["loss"].shape == ()
    return state

def distance(a, b):
    leaves = (jax.tree.leaves((state.params, state.batch_stats)) for state in (a, b))
    return max(np.abs(np.asarray(x) - np.asarray(y)).max() for x, y in zip(*leaves, strict=True))

ONE = trained(jax.jit(WHOLE))
ROUNDING = 576 * 2.0**-53

def bound():
    aside = jax.tree.map(
        lambda p: p * (1 + 1e6 * ROUNDING * rng.choice([-1, 1], p.shape)), START.params
    )
    moved = distance(trained(jax.jit(WHOLE), START._replace(params=aside)), ONE)
    return STEPS * moved / 1e6

BOUND = bound()
print(f"bound {BOUND:.1e}")
assert BOUND < 1e-9

def assert_close(name, a, b):
    print(f"{name}: {distance(a, b):.1e}")
    assert distance(a, b) <= BOUND, (name, distance(a, b), BOUND)
    assert a.step == b.step == STEPS and a.key == b.key

def cut(devices):
    return lambda batch: parallel.split(batch, devices)
"""

THREE_WAYS = """
def by_hand(devices):
    # Parts one after the other on one device, averaged, then the optimiser.
    @jax.jit
    def step(state, parts):
        def of_part(batch):
            def loss(params):
                variables = {"params": params, "batch_stats": state.batch_stats}
                logits, new = Net().apply(variables, batch[0], train=True, mutable=["batch_stats"])
                return cross_entropy(logits, batch[1]), new["batch_stats"]
            (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
            return grads, stats, value
        mean = lambda a: a.sum(0) / devices
        grads, stats, value = jax.tree.map(mean, jax.lax.map(of_part, parts))
        updates, opt_state = OPTIMIZER.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        after = state._replace(
            step=state.step + 1, params=params, batch_stats=stats, opt_state=opt_state
        )
        return after, {"nonfinite": jnp.int32(-1), "loss": value}
    return trained(step, cut=cut(devices))

for n in {"adder": (1, 2, 8), "float": (4,)}[sys.argv[1]]:
    devices = jax.devices()[:n]
    mesh = parallel.data_mesh(devices)
    on_mesh = trained(parallel.on_mesh(WHOLE, mesh))
    assert len(on_mesh.step.sharding.device_set) == n
    assert_close(f"on_mesh, {n}", on_mesh, ONE)
    assert_close(f"per_device alike, {n}", trained(parallel.per_device(ALIKE, mesh)), ONE)
    pmapped = trained(parallel.pmapped(ALIKE, devices), cut=cut(n))
    assert_close(f"pmapped alike, {n}", pmapped, ONE)

    parts = by_hand(n)
    assert n == 1 or distance(parts, ONE) > 1e-3  # what the choice of statistics makes
    assert_close(f"per_device, {n}", trained(parallel.per_device(PARTS, mesh)), parts)
    pmapped = trained(parallel.pmapped(PARTS, devices), cut=cut(n))
    assert_close(f"pmapped, {n}", pmapped, parts)
"""

ACCUMULATED = """
mesh = parallel.data_mesh(jax.devices()[:4])
one = trained(jax.jit(train_step(Net(), OPTIMIZER, accumulate=2)))
assert distance(one, ONE) > 1e-3
whole = train_step(Net(), OPTIMIZER, accumulate=2)
alike = train_step(Net("data"), OPTIMIZER, accumulate=2, axis_name="data")
assert_close("on_mesh", trained(parallel.on_mesh(whole, mesh)), one)
assert_close("per_device alike", trained(parallel.per_device(alike, mesh)), one)
assert_close("pmapped alike", trained(parallel.pmapped(alike, jax.devices()[:4]), cut=cut(4)), one)
"""

PLACED = """
explicit = jax.make_mesh((8,), ("data",))
assert explicit.axis_types == (jax.sharding.AxisType.Explicit,)
for mesh in (parallel.data_mesh(), explicit):
    everywhere, by_image = (
        jax.sharding.NamedSharding(mesh, spec) for spec in (parallel.EVERYWHERE, parallel.BY_IMAGE)
    )
    state = jax.device_put(START, everywhere)
    place = lambda batch: jax.device_put(batch, by_image)
    assert_close("jit", trained(jax.jit(WHOLE), state, place), ONE)
    assert_close("on_mesh", trained(parallel.on_mesh(WHOLE, mesh), state, place), ONE)
    state = parallel.replicate(START, mesh)
    assert state.key.sharding.is_fully_replicated and len(state.key.sharding.device_set) == 8
    place = lambda batch: parallel.shard(batch, mesh)
    assert place(BATCHES[0])[0].addressable_shards[3].data.shape == (2, 6, 6, 2)
    assert_close("placed", trained(parallel.on_mesh(WHOLE, mesh), state, place), ONE)
step = parallel.on_mesh(WHOLE, mesh, donate=True)
assert_close("donated", trained(step, state, place), ONE)
assert state.params["Dense_0"]["kernel"].is_deleted()

batch = np.zeros((100, 6, 6, 2)), np.zeros(100, np.int32)
for refused, sentence in (
    (lambda: parallel.on_mesh(WHOLE, mesh)(START, batch), "multiple of the 8 devices, not 100."),
    (lambda: train_steps(WHOLE, 100, mesh=mesh), "multiple of the 8 devices, not 100."),
    (lambda: parallel.on_mesh(WHOLE, jax.make_mesh((8,), ("model",))), 'axis "data"'),
):
    try:
        refused()
    except InputError as error:
        assert sentence in str(error), error
    else:
        raise AssertionError("nothing was refused")
"""

EPOCH = """
def moved(text):  # (operation, elements) of all arrays that travel
    form = r"= (.*?) (all-\\w+|collective-permute|reduce-scatter)(?:-start)?\\("
    for shapes, op in re.findall(form, text):
        for shape in re.findall(r"\\w+\\[([\\d,]*)\\]", shapes):
            yield op, int(np.prod([int(size) for size in shape.split(",") if size]))

mesh = parallel.data_mesh(jax.devices()[:4])
data = np.concatenate([b[0] for b in BATCHES]), np.concatenate([b[1] for b in BATCHES])
everywhere = jax.sharding.NamedSharding(mesh, parallel.EVERYWHERE)
one = jax.jit(train_steps(WHOLE, IMAGES))(START, data, STEPS)[0]
for step in (WHOLE, parallel.per_device(ALIKE, mesh)):
    run = jax.jit(
        train_steps(step, IMAGES, mesh=mesh),
        in_shardings=(everywhere, everywhere, None),
        out_shardings=everywhere,
    )
    args = parallel.replicate(START, mesh), parallel.replicate(data, mesh), STEPS
    program = run.lower(*args).compile()
    # Sums no larger than the largest parameter; a device's images of a batch are larger.
    travelling = [*moved(program.as_text())]
    assert travelling and {op for op, _ in travelling} == {"all-reduce"}, travelling
    assert max(size for _, size in travelling) == 81 < 4 * 6 * 6 * 2, travelling
    assert_close("train_steps", program(*args)[0], one)

test = data[0][:70], data[1][:70]
for images, placed in ((70, parallel.replicate), (64, parallel.shard)):
    part = jax.tree.map(lambda a: a[:images], test)
    expected = evaluation(Net(), batch_size=500)(one, part)
    evaluate = evaluation(Net(), batch_size=19, mesh=mesh)
    args = parallel.replicate(one, mesh), placed(part, mesh)
    got = evaluate(*args)
    np.testing.assert_allclose(got["loss"], expected["loss"], rtol=1e-12)
    np.testing.assert_allclose(got["accuracy"], expected["accuracy"], rtol=1e-12)
    if images == 64:
        text = evaluate.program.lower(*args).compile().as_text()
        assert {op for op, _ in moved(text)} == {"all-reduce"}, [*moved(text)]
"""


def run(program, devices, *args):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, "-c", program, *args],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]


def test_on_two_simulated_devices():
    run(TWO_DEVICES, 2)


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ["adder", "float"])
def test_three_ways_are_one_training(arithmetic):
    run(SETUP + THREE_WAYS, 8, arithmetic)


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", [ACCUMULATED, PLACED, EPOCH], ids=["accumulated", "placed", "epoch"]
)
def test_on_eight_simulated_devices(program):
    run(SETUP + program, 8, "adder")
