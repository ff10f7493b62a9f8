"""A process that does not come or dies is one sentence of every other one, within 15 seconds."""

import json
import os
import re
import signal
import socket
import threading
import time
from typing import Any

import pytest

from nnlab.errors import InputError
from nnlab.runs import peers
from nnlab.runs.roll_call import Peer, call_roll
from tests.runs.test_hosts import free_port, start


def rolls(port, *calls, timeout=20.0):
    """Call the roll as several processes; return what each returns or raises, in order."""
    results: list[Any] = [None] * len(calls)

    def one(place, processes, process):
        try:
            results[place] = call_roll(f"127.0.0.1:{port}", processes, process, timeout)
        except InputError as error:
            results[place] = str(error)

    threads = [
        threading.Thread(target=one, args=(place, *call)) for place, call in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_a_roll_call():
    zero, two, one = rolls(free_port(), (3, 0), (3, 2), (3, 1))
    assert sorted(zero) == [1, 2] and sorted(one) == [0, 2] and sorted(two) == [0, 1]
    assert {peer.pid for peer in (*zero.values(), *one.values())} == {os.getpid()}
    zero[1].link.sendall(b"later")
    assert one[0].link.recv(5) == b"later"
    assert [one[2].link, two[1].link] == [None, None]


@pytest.mark.parametrize(
    ("calls", "sentence"),
    [
        ([(2, 0), (3, 1)], "Process 1 .* was started for 3 processes, and process 0 for 2;"),
        ([(3, 0), (3, 1), (3, 1)], "Process 1 was started twice, on .* and on "),
    ],
)
def test_processes_that_do_not_fit(calls, sentence):
    said = rolls(free_port(), *calls)
    assert all(re.match(sentence, each) and "\n" not in each for each in said), said


def connected(port):
    """Connect to a process 0 that may not listen yet."""
    for _ in range(500):
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise TimeoutError


def test_other_versions():
    port, results = free_port(), []
    zero = threading.Thread(target=lambda: results.extend(rolls(port, (2, 0))))
    zero.start()
    hello = {"nnlab": 1, "process": 1, "processes": 2, "host": "old", "pid": 7}
    hello |= {"versions": {"nnlab": "0.0"}}
    with connected(port) as link:
        link.sendall(json.dumps(hello).encode() + b"\n")
        fault = json.loads(link.makefile().readline())["fault"]
    zero.join()
    assert fault == results[0]
    assert fault.startswith("Process 1 on old and process 0 differ in ")
    assert "nnlab 0.0 and " in fault


def test_waiting_says_for_whom(capsys):
    port = free_port()
    zero, one = rolls(port, (3, 0), (3, 1), timeout=2.6)
    assert "rocess" in one
    assert f"Process 2 of 3 did not come to 127.0.0.1:{port} in 2.6 seconds; " in zero
    lines = capsys.readouterr().err.splitlines()
    assert any(
        line.startswith(f"process 0 waits for process 2 of 3 at 127.0.0.1:{port}, for ")
        for line in lines
    )


def test_nobody_listens():
    port = free_port()
    (said,) = rolls(port, (2, 1), timeout=0.5)
    assert said.startswith(f"Process 0 of 2 did not come to 127.0.0.1:{port} in 0.5 seconds (conn")


def test_another_program_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        answer = threading.Thread(target=lambda: server.accept()[0].sendall(b"SSH-2.0\n"))
        answer.start()
        (said,) = rolls(port, (2, 1))
        answer.join()
    assert said.startswith(f"What answers at 127.0.0.1:{port} is not a process 0 that waits;")


class Seen(peers.Watch):
    """A watch that ends nothing."""

    def __init__(self, *arguments):
        self.status, self.exited = None, threading.Event()
        super().__init__(*arguments)

    def _exit(self, status):
        self.status = status
        self.exited.set()


def watched(process):
    ours, theirs = socket.socketpair()
    other = 1 - process
    everyone = {other: Peer(other, "elsewhere", 7, ours), 2: Peer(2, "third", 8)}
    return Seen(process, 3, everyone), theirs


def test_a_connection_that_breaks_is_a_death(capsys):
    with peers.going_on(lambda: "it goes on from here"):
        watch, other = watched(1)
        other.close()
        assert watch.exited.wait(5)
    assert watch.status == 1
    assert capsys.readouterr().err == (
        "Process 0 of 3 (on elsewhere, pid 7) ended without a word, as one that is killed does; it "
        "goes on from here.\n"
    )


def test_process_0_tells_of_a_death(capsys):
    watch, other = watched(1)
    other.sendall(b'{}\n{"dead": 2, "how": "cannot be reached any more"}\n')
    assert watch.exited.wait(5)
    assert capsys.readouterr().err.startswith("Process 2 of 3 (on third, pid 8) cannot be reached")


def test_an_error_is_told_and_ends_the_others_soon(capsys, monkeypatch):
    monkeypatch.setattr(peers, "_GRACE", 0.1)
    watch, other = watched(0)
    other.sendall(b'{"left": 1, "why": "The disk is full."}\n')
    assert watch.exited.wait(5)
    assert "(on elsewhere, pid 7) ended: The disk is full; start" in capsys.readouterr().err
    other.close()


def test_an_end_without_an_error_is_no_death(capsys):
    watch, other = watched(1)
    other.sendall(b'{"left": 0, "why": null}\n')
    other.close()
    assert not watch.exited.wait(0.3)
    assert capsys.readouterr().err == ""


# Of processes that train as one, `victim` kills itself at `moment`.
TRAINING = """
import contextlib, dataclasses, os, signal, sys, time
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


def after_waiting(said):
    """The lines of standard error, but those that say for whom a process waited."""
    return [line for line in said.splitlines() if not re.match("process . waits for ", line)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "moment", "saved"),
    [
        (1, "joined", None),
        (0, "opened", None),
        (1, "compilation", False),
        (2, "first step", False),
        (1, "step", True),
        (0, "step", True),
        (0, "saving", None),  # which may have come to its end
        (1, "evaluation", False),
    ],
)
def test_a_process_that_is_killed(victim, moment, saved, tmp_path):
    port = free_port()
    every = [start(TRAINING, 3, i, port, victim, moment, tmp_path / "run") for i in range(3)]
    assert every[victim].wait(timeout=200) == -signal.SIGKILL
    begin = time.monotonic()
    said = [process.communicate(timeout=40)[1] for process in every]
    assert time.monotonic() - begin < 15
    death = f"Process {victim} of 3 (on {socket.gethostname()}, pid {every[victim].pid}) ended"
    for i in {0, 1, 2} - {victim}:
        assert every[i].returncode == 1, said[i]
        (line,) = after_waiting(said[i])
        assert line.startswith(death), said[i]
        path = re.search(r"goes on from (\S+)\.$", line)
        assert saved is None or bool(path) == saved, said[i]
        assert path is None or os.path.isdir(path[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "statuses", "sentence"),
    [
        ("configuration", [2, 2], "Process 1 and process 0 have different configurations: rate is"),
        ("SIGTERM", [143, 143], "Net was stopped by SIGTERM at step"),
        ("trace", [1, 1], "ended: TypeError: this is broken; start all processes again with"),
        ("end", [1, 1], "ended: TypeError: this is broken; start all processes again"),
    ],
)
def test_a_process_that_ends_otherwise(moment, statuses, sentence, tmp_path):
    port = free_port()
    every = [start(TRAINING, 2, i, port, 1, moment, tmp_path / "run") for i in range(2)]
    every[1].wait(timeout=200)
    said = [process.communicate(timeout=40)[1] for process in every]
    assert [process.returncode for process in every] == statuses, said
    (line,) = after_waiting(said[0])
    assert sentence in line
