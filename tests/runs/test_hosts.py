"""Two processes with two simulated devices each are one process with four."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.runs import hosts

# On the mesh of four devices, from the same seed: an epoch out of memory, then steps on batches of
# which each process holds its half.
TRAINING = """
import sys
from nnlab.runs import hosts
out, processes, process, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if processes > 1:
    hosts.initialize(f"127.0.0.1:{port}", processes, process, timeout=100)
import flax.linen as nn, jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from nnlab.layers import AdderConv
from nnlab.layers.normalization import batch_norm
from nnlab.optim import adder_recipe
from nnlab.training import cross_entropy, init, parallel, train_step, train_steps

jax.config.update("jax_enable_x64", True)
assert jax.device_count() == 4 and jax.process_count() == processes

class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        for _ in range(2):
            x = AdderConv(3, (3, 3), param_dtype=jnp.float64)(x)
            x = nn.relu(batch_norm(train)(x))
        return nn.Dense(3, param_dtype=jnp.float64)(x.mean((1, 2)))

rng = np.random.default_rng(0)
# An image's label here is its number; of three classes it is in that modulo 3.
images, numbers = rng.normal(size=(40, 4, 4, 1)), np.arange(40)
optimizer = adder_recipe(10)
mesh = parallel.data_mesh()
state = init(jax.random.key(0), Net(), optimizer, images[:1])
# Flax makes the parameters of BatchNorm in float32.
wide = lambda tree: jax.tree.map(jnp.float64, tree)
params = wide(state.params)
opt_state = optimizer.init(params)
start = state._replace(params=params, batch_stats=wide(state.batch_stats), opt_state=opt_state)
step = train_step(Net(), optimizer, loss=lambda logits, n: cross_entropy(logits, n % 3))
everywhere = NamedSharding(mesh, PartitionSpec())
by_image = NamedSharding(mesh, PartitionSpec(None, "data"))

def watched(state, batch):
    after, metrics = step(state, batch)
    return after, {"loss": metrics["loss"], "seen": batch[1]}

def epoch(state, data):
    return train_steps(watched, 8, mesh=mesh)(state, data, 5)

outs = everywhere, {"loss": everywhere, "seen": by_image}
epoch = jax.jit(epoch, out_shardings=outs)
on_mesh = parallel.on_mesh(step, mesh)

def trained(state):
    data = parallel.replicate((images, numbers), mesh)
    state, metrics = epoch(parallel.replicate(state, mesh), data)
    seen = np.concatenate([s.data for s in metrics["seen"].addressable_shards], axis=1)
    for first in (0, 16):
        batch = images[first:first + 16], numbers[first:first + 16]
        mine = jax.tree.map(lambda a: np.split(a, processes)[process], batch)
        state, _ = on_mesh(state, parallel.shard(mine, mesh))
    leaves = jax.tree.leaves((state.params, state.batch_stats))
    return {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves)}, seen

flat, seen = trained(start)
# A step's sums of at most 256 numbers, the pixels of 16 images, differ by 256 x 2^-53 of their
# terms when taken in another order. What that much in the first step, times a million, becomes in
# seven is measured; it happens in each of the seven.
aside = 1e6 * 256 * 2.0**-53
params = jax.tree.map(lambda p: p * (1 + aside * rng.choice([-1, 1], p.shape)), start.params)
others, _ = trained(start._replace(params=params))
bound = 7 / 1e6 * max(np.abs(others[name] - flat[name]).max() for name in flat)

kilobytes = "x" * 2000
agreed = hosts.agree((process, 2.0**60 + 1, kilobytes) if hosts.is_writer() else None)
assert agreed == (0, 2.0**60 + 1, kilobytes)
assert hosts.is_writer() == (process == 0)
np.savez(f"{out}/{processes}_{process}.npz", seen=seen, bound=bound, **flat)
"""


def free_port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def start(program, *args, devices=1):
    flags = {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-c", program, *map(str, args)]
    return subprocess.Popen(
        command,
        env=os.environ | flags,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(processes):
    for process in processes:
        output, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors[-3000:]
        assert "[Gloo]" not in output + errors


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    port = free_port()
    finish([start(TRAINING, tmp_path, 2, i, port, devices=2) for i in range(2)])
    finish([start(TRAINING, tmp_path, 1, 0, port, devices=4)])
    one, *two = (np.load(tmp_path / f"{name}.npz") for name in ("1_0", "2_0", "2_1"))
    leaves = [name for name in one.files if name.isdecimal()]
    assert len(leaves) == 12
    for name in leaves:
        np.testing.assert_array_equal(two[0][name], two[1][name])
    largest = max(np.abs(two[0][name] - one[name]).max() for name in leaves)
    print(f"one process and two differ by {largest:.1e}, bound {one['bound']:.1e}")
    assert largest <= one["bound"] < 1e-9
    # Every step's eight images are four of one process and four others of the other.
    assert two[0]["seen"].shape == two[1]["seen"].shape == (5, 4)
    both = np.concatenate([two[0]["seen"], two[1]["seen"]], axis=1)
    np.testing.assert_array_equal(np.sort(both), np.sort(one["seen"]))
    assert sorted(both.ravel().tolist()) == list(range(40))


FIT = """
import contextlib, dataclasses, os, signal, sys
from nnlab.errors import Interrupted
from nnlab.runs import hosts
out, processes, process, port, stop_after = sys.argv[1], *map(int, sys.argv[2:6])
if processes > 1:
    hosts.initialize(f"127.0.0.1:{port}", processes, process, timeout=100)
import flax.linen as nn, jax, numpy as np, optax
from nnlab import runs, training
from nnlab.data import Stream
from nnlab.layers.normalization import batch_norm

class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(nn.relu(batch_norm(train)(nn.Dense(8)(x.reshape(len(x), -1)))))

class Records:
    def __len__(self):
        return 40
    def __getitem__(self, i):
        return np.random.default_rng(i).integers(0, 255, (4, 4, 1), np.uint8), i % 3

def scaled(images):
    return images.astype(np.float32) / 255

@dataclasses.dataclass
class Config:
    pass

def stopping(feed):
    # In process 1, SIGTERM comes before the first step from `stop_after` on.
    @contextlib.contextmanager
    def compile(*arguments):
        with feed.compile(*arguments) as advance:
            def watched(state, count):
                if process == 1 and 0 < stop_after <= state.step:
                    os.kill(os.getpid(), signal.SIGTERM)
                return advance(state, count)
            yield watched
    return feed._replace(compile=compile)

mesh, optimizer = training.data_mesh(), optax.sgd(0.1)
images, labels = zip(*(Records()[i] for i in range(40)))
test = scaled(np.stack(images)), np.array(labels, np.int32)
feeds = {
    "memory": training.in_memory(test, 8),
    "stream": training.streamed(Stream(Records(), 8, seed=0, transform=scaled)),
}
folder = runs.RunFolder.create(out, Config(), resume=True)
for name, feed in feeds.items():
    state = training.init(jax.random.key(0), Net(), optimizer, test[0])
    step = training.train_step(Net(), optimizer)
    try:
        runs.fit(
            name, state, step, training.evaluation(Net(), mesh=mesh), stopping(feed), test,
            epochs=3, folder=folder, mesh=mesh,
        )
    except Interrupted as error:
        assert stop_after and error.signal == signal.SIGTERM
        hosts.say(str(error))
        break
else:
    folder.write_result({"processes": processes})
"""


def digests(folder, name):
    about = json.loads(
        (folder / "checkpoints" / name / "step_15" / "about" / "metadata").read_text()
    )
    return about["digests"]


def lines(folder):
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in e.items() if key != "seconds"} for e in entries]


@pytest.mark.slow
def test_a_run_of_two_processes_is_stopped_in_one_and_goes_on(tmp_path):
    def run(folder, processes, stop_after=0):
        port, devices = free_port(), 4 // processes
        every = [
            start(FIT, tmp_path / folder, processes, i, port, stop_after, devices=devices)
            for i in range(processes)
        ]
        finish(every)

    run("broken", 2, stop_after=5)
    assert not (tmp_path / "broken" / "result.json").exists()
    assert len(lines(tmp_path / "broken")) <= 2
    for folder, processes in (("broken", 2), ("whole", 2), ("one", 1)):
        run(folder, processes)
    broken, whole, one = (tmp_path / name for name in ("broken", "whole", "one"))
    assert json.loads((broken / "result.json").read_text()) == {"processes": 2}
    assert len(lines(whole)) == 6 and lines(broken) == lines(whole)
    for name in ("memory", "stream"):
        assert digests(broken, name) == digests(whole, name)
    # Sums over 8 images in two orders: 2^-21 a step, of fifteen steps without kinks near by.
    for line, expected in zip(lines(whole), lines(one), strict=True):
        assert line.pop("network") == expected.pop("network")
        assert line == pytest.approx(expected, rel=1e-4)


ALONE = """
import sys
from nnlab.errors import InputError
from nnlab.runs import hosts
hosts.initialize(sys.argv[1], 2, int(sys.argv[2]), timeout=2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_a_process_whose_peers_do_not_come_says_so(process):
    port = free_port()
    _, errors = start(ALONE, f"127.0.0.1:{port}", process).communicate(timeout=100)
    expected = f"Process {1 - process} of 2 did not come to 127.0.0.1:{port} in 2 seconds"
    assert f"InputError: {expected}" in errors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((None, 2, None), "--coordinator and --process must be given too."),
        (("host:1234", None, None), "--processes and --process must be given too."),
        (("host", 2, 0), "--coordinator must be HOST:PORT with a port from 1 to 65535, not host."),
        (("host:", 2, 0), "HOST:PORT"),
        ((":1234", 2, 0), "HOST:PORT"),
        (("host:70000", 2, 0), "not host:70000."),
        (("host:1234", 0, 0), "--processes must be at least 1, not 0."),
        (("host:1234", 2, 2), "--process must be from 0 to 1 for 2 processes, not 2."),
        (("host:1234", 2, -1), "not -1."),
    ],
)
def test_arguments_that_do_not_fit(arguments, sentence):
    with pytest.raises(InputError) as error:
        hosts.initialize(*arguments)
    assert str(error.value).endswith(sentence) or sentence in str(error.value)
    assert str(error.value).count("\n") == 0


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InputError, match=f"free port, but {port} cannot be listened on"):
            hosts.initialize(f"localhost:{port}", 2, 0)


def test_no_time_to_wait():
    with pytest.raises(InputError, match="timeout must be at least 1 second, not 0"):
        hosts.initialize(timeout=0)


NO_CLUSTER = """
from nnlab.runs import hosts
hosts.initialize(timeout=30)
"""


@pytest.mark.slow
def test_no_cluster():
    _, errors = start(NO_CLUSTER).communicate(timeout=100)
    assert "InputError: No cluster was recognised" in errors


def test_alone_a_process_agrees_with_itself():
    value = object()
    assert hosts.agree(value) is value
    assert hosts.is_writer()
