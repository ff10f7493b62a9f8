"""A process that does not come or dies is one sentence of every other one, within 15 seconds."""

import re
import socket
import subprocess
import sys
import threading
import time

import pytest

from nnlab.errors import InputError
from nnlab.runs.roll_call import call_roll
from tests.runs.test_hosts import free_port, start

# Of processes that train as one, `victim` kills itself at `moment`.
TRAINING = """
import dataclasses, os, signal, sys, time
from nnlab import runs
from nnlab.runs import hosts, script
processes, process, port, victim, moment, out = *map(int, sys.argv[1:5]), *sys.argv[5:7]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def at(name, action=die):
    if process == victim and moment == name:
        print(f"{time.time()}", flush=True)
        action()

@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = out
    resume: bool = True
    rate: float = 0.2 if process == victim and moment == "configuration" else 0.1

def broken():
    raise TypeError("this is broken")

def main(config):
    hosts.initialize(f"127.0.0.1:{port}", processes, process, timeout=90)
    import flax.linen as nn, jax, numpy as np, optax
    from nnlab import training
    at("joined")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            if train and not isinstance(x, np.ndarray):
                at("compilation")
            return nn.Dense(3)(nn.relu(nn.Dense(8)(x.reshape(len(x), -1))))

    rng = np.random.default_rng(0)
    data = rng.normal(size=(72, 4, 4, 1)).astype(np.float32), np.arange(72, dtype=np.int32) % 3
    model, optimizer, mesh = Net(), optax.sgd(0.1), training.data_mesh()

    def score(tested):
        if tested:
            at("evaluation")
        return -tested["loss"]

    with config.open() as record:
        at("opened")
        state = training.init(jax.random.key(0), model, optimizer, data[0])
        feed = training.in_memory(data, 24)
        compile = feed.compile
        import contextlib
        @contextlib.contextmanager
        def watched(*arguments):
            with compile(*arguments) as advance:
                def step(state, count):
                    if state.step == 0: at("first step")
                    if state.step >= 6:
                        at("step")
                        at("trace", broken)
                        at("SIGTERM", lambda: os.kill(os.getpid(), signal.SIGTERM))
                        at("quiet end", lambda: sys.exit(0))
                    return advance(state, min(count, 2))
                yield step
        if moment == "saving" and process == victim:
            from nnlab.runs.checkpoints import Checkpoints
            save = Checkpoints.save
            def saving(self, *arguments):
                save(self, *arguments)
                at("saving")
            Checkpoints.save = saving
        runs.fit(
            "Net", state, training.train_step(model, optimizer),
            training.evaluation(model, mesh=mesh), feed._replace(compile=watched), data,
            epochs=100000 if moment != "end" else 1, folder=record.folder, mesh=mesh, score=score,
        )
        at("end", broken)
    print("over", flush=True)

script.run(main, Config, [])
"""


def ended(processes, limit=40):
    """Wait for all; return their exit statuses, errors and the seconds until the last ended."""
    said = [process.communicate(timeout=limit) for process in processes]
    return [process.returncode for process in processes], [errors for _, errors in said]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "moment", "saved"),
    [
        (1, "joined", None),
        (0, "opened", None),
        (1, "compilation", None),
        (2, "first step", None),
        (1, "step", True),
        (0, "step", True),
        (0, "saving", True),
        (1, "evaluation", True),
    ],
)
def test_a_process_that_is_killed(victim, moment, saved, tmp_path):
    port = free_port()
    every = [start(TRAINING, 3, i, port, victim, moment, tmp_path / "run") for i in range(3)]
    every[victim].wait(timeout=120)
    begin = time.monotonic()
    statuses, errors = ended(every)
    assert time.monotonic() - begin < 15
    for i in {0, 1, 2} - {victim}:
        assert statuses[i] == 1, errors[i]
        assert errors[i].count("\n") == 1, errors[i]
        assert f"Process {victim} of 3 (on {socket.gethostname()}, pid {every[victim].pid}) ended" in errors[i]
