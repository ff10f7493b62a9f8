"""One step compiled in three ways for 1, 2, 4 and 8 simulated devices, against one device.

In float64, so that twenty steps of a network with kinks can be compared. What they may differ by is
derived from the network itself: a step sums at most 576 numbers (the pixels of a batch), each sum
in two orders differs by at most 576 × 2^-53 of its terms, and what such a difference in the first
step has grown to after twenty is measured, by a training that starts that much aside (times a
million, so that it is seen); it happens in each of the twenty.
"""

import os
import subprocess
import sys

import pytest

SETUP = """
import re, sys
import flax.linen as nn, jax, jax.numpy as jnp, numpy as np, optax
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.errors import InputError
from nnlab.models import SmallCNN
from nnlab.optim import adder_rate, adder_recipe, labels
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

for n in (1, 2, 4, 8):
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
"""

RATE_AFTER_AVERAGING = """
# Two parts with gradients g and -g / 2: of the average the rate makes length eta sqrt(k), of the
# rates the average would be nothing.
g = np.random.default_rng(1).normal(size=(3, 3))
parts = jnp.stack([g, -g / 2])
rate = adder_rate(0.2)

class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        # Logits of which the "loss" below has the gradient x.
        return (x * self.param("adder_kernel", nn.initializers.zeros, (3, 3), x.dtype)).sum((1, 2))

optimizer = optax.chain(optax.partition({"adder": rate}, labels), optax.scale(-1.0))
step = train_step(Layer(), optimizer, lambda y, _: y.mean(), axis_name="data")
# One image a device; the accuracy of logits without classes is nobody's.
state = init(jax.random.key(0), Layer(), optimizer, parts[:1])
batch = parts, jnp.zeros(2, jnp.int32)
expected = -0.2 * 3 * g / np.linalg.norm(g)
devices = jax.devices()[:2]
for way, batch in (
    (parallel.per_device(step, parallel.data_mesh(devices)), batch),
    (parallel.pmapped(step, devices), parallel.split(batch, 2)),
):
    moved = way(state, batch)[0].params["adder_kernel"]
    np.testing.assert_allclose(moved, expected, rtol=1e-12)
before = jnp.stack([rate.update(part, rate.init(None))[0] for part in parts]).mean(0)
assert np.abs(before).max() < 1e-12
"""

REFUSED = """
def sentence(call, *args):
    try:
        call(*args)
    except InputError as error:
        return str(error)
    raise AssertionError("nothing was refused")

mesh = parallel.data_mesh()
images, classes = np.zeros((100, 6, 6, 2)), np.zeros(100, np.int32)
batch = images, classes
expected = "--batch-size must be a multiple of the 8 devices, not 100."
for call, *args in (
    (parallel.on_mesh(WHOLE, mesh), START, batch),
    (parallel.per_device(PARTS, mesh), START, batch),
    (parallel.shard, batch, mesh),
    (parallel.split, batch, 8),
):
    assert sentence(call, *args) == expected, sentence(call, *args)
assert sentence(lambda: train_steps(WHOLE, 100, mesh=mesh)) == expected
other = jax.make_mesh((8,), ("model",))
assert "axis \\"data\\"" in sentence(parallel.on_mesh, WHOLE, other)
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
        text = evaluate.lower(*args).compile().as_text()
        assert {op for op, _ in moved(text)} == {"all-reduce"}, [*moved(text)]
"""


def run(program, arithmetic):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SETUP + program, arithmetic],
        env=os.environ | flags,
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ["adder", "float"])
def test_three_ways_are_one_training(arithmetic):
    run(THREE_WAYS, arithmetic)


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [ACCUMULATED, PLACED, RATE_AFTER_AVERAGING, REFUSED, EPOCH],
    ids=["accumulated", "placed", "rate", "refused", "epoch"],
)
def test_on_eight_simulated_devices(program):
    run(program, "adder")
