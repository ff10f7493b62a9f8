"""A roll call of processes that are to train as one, before JAX joins them.

Process 0 listens on the coordinator's port; each of the others connects to it, says in one line of
JSON who it is, and hears once a second who is still missing, until all are there or something does
not fit. Then process 0 frees the port for JAX, and the connections stay open: from now on they show
whether a peer lives (`nnlab.runs.peers`). One port suffices for all of it.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any

from nnlab.errors import InputError
from nnlab.runs.environment import versions

_TICK = 0.25  # seconds between two looks at what has happened
_ANSWER = 10.0  # seconds in which whoever is connected to says something
_LONGEST = 1 << 16  # bytes of a line


@dataclasses.dataclass
class Peer:
    """Another process: where it runs, and the connection to it, which only process 0 has to all."""

    number: int
    host: str
    pid: int
    link: socket.socket | None = None

    def __str__(self) -> str:
        return f"process {self.number} (on {self.host}, pid {self.pid})"


def call_roll(address: str, processes: int, process: int, timeout: float) -> dict[int, Peer]:
    """Meet the other processes; return them by their numbers.

    Args:
        address: "HOST:PORT" of process 0.
        processes: the number of processes.
        process: the number of this one.
        timeout: seconds to wait for the others. A line on standard error says for whom, after two
            seconds and then ever more rarely.

    Raises:
        InputError: the port is taken or is that of another program, a process does not come in
            time, a number is given twice, or the processes differ in their number or versions.
    """
    host, _, port = address.rpartition(":")
    about = {
        "nnlab": 1,  # version of this protocol
        "process": process,
        "processes": processes,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "versions": {"nnlab": importlib.metadata.version("nnlab")} | versions(),
    }
    waiting = _Waiting(address, processes, process, timeout)
    if process == 0:
        return _gather(int(port), about, waiting)
    return _report(host.strip("[]"), int(port), about, waiting)


class _Waiting:
    """The time that is left, and lines that say for whom it passes."""

    def __init__(self, address: str, processes: int, process: int, timeout: float):
        self.address, self.processes, self.process = address, processes, process
        self.timeout, self.start, self._next = timeout, time.monotonic(), 2.0

    @property
    def over(self) -> bool:
        return time.monotonic() - self.start >= self.timeout

    def names(self, missing: Iterable[int]) -> str:
        *first, last = [str(number) for number in sorted(missing)]
        several = f"processes {', '.join(first)} and {last}" if first else f"process {last}"
        return f"{several} of {self.processes}"

    def say(self, missing: Iterable[int], why: str = "") -> None:
        passed = time.monotonic() - self.start
        if passed >= self._next:
            self._next = passed + min(30, passed)
            line = f"process {self.process} waits for {self.names(missing)} at {self.address}"
            left = max(0, self.timeout - passed)
            print(f"{line}{why}, for {left:.0f} s more.", file=sys.stderr, flush=True)

    def given_up(self, missing: Iterable[int], why: str = "") -> str:
        several = self.names(missing)
        return (
            f"{several[0].upper()}{several[1:]} did not come to {self.address} in "
            f"{self.timeout:g} seconds{why}; each must be started, with the same coordinator, and "
            "reach the port of process 0."
        )


def _gather(port: int, about: dict[str, Any], waiting: _Waiting) -> dict[int, Peer]:
    """Process 0: wait for the others."""
    peers: dict[int, Peer] = {}
    fault, told = None, 0.0
    with listen(port) as server:
        server.settimeout(_TICK)
        while len(peers) < waiting.processes - 1 and fault is None:
            try:
                link = server.accept()[0]
            except TimeoutError:
                link = None
            if link is not None and (hello := _hello(link)) is not None:
                peer = Peer(hello["process"], hello["host"], hello["pid"], link)
                fault = _misfit(about, hello, peer, peers.get(peer.number))
                if fault is None:
                    peers[peer.number] = peer
                else:
                    say(link, fault=fault)
            for number in [number for number, peer in peers.items() if _has_left(peer)]:
                del peers[number]  # it may be started again
            missing = set(range(1, waiting.processes)) - peers.keys()
            if not missing or fault is not None:
                continue
            waiting.say(missing)
            if waiting.over:
                fault = waiting.given_up(missing)
            elif time.monotonic() - told >= 1:
                told = time.monotonic()
                for peer in peers.values():
                    say(peer.link, missing=sorted(missing))
    everyone = [(0, about["host"], about["pid"])]
    everyone += [(peer.number, peer.host, peer.pid) for peer in peers.values()]
    for peer in peers.values():
        say(peer.link, **({"everyone": everyone} if fault is None else {"fault": fault}))
    if fault is not None:
        raise InputError(fault)
    return peers


def _hello(link: socket.socket) -> dict[str, Any] | None:
    """Return what a process says of itself; None if it is something else that has connected."""
    keep_alive(link)
    hello = _line(link, 2.0)
    if isinstance(hello, dict) and hello.get("nnlab") == 1:
        return hello
    link.close()
    return None


def _misfit(
    mine: dict[str, Any], its: dict[str, Any], peer: Peer, namesake: Peer | None
) -> str | None:
    """Say why a process cannot take part, or return None."""
    if its["processes"] != mine["processes"]:
        return (
            f"{peer} was started for {its['processes']} processes, and process 0 for "
            f"{mine['processes']}; expected the same number in all."
        ).capitalize()
    if namesake is not None:
        return (
            f"Process {peer.number} was started twice, on {namesake.host} (pid {namesake.pid}) and "
            f"on {peer.host} (pid {peer.pid}); expected one process of each number."
        )
    names = sorted(mine["versions"].keys() | its["versions"].keys())
    differ = [
        f"{name} {its['versions'].get(name)} and {mine['versions'].get(name)}"
        for name in names
        if its["versions"].get(name) != mine["versions"].get(name)
    ]
    if differ:
        return (
            f"Process {peer.number} on {peer.host} and process 0 differ in {', '.join(differ)}; "
            "expected the same versions in all."
        )
    return None


def _has_left(peer: Peer) -> bool:
    assert peer.link is not None
    peer.link.setblocking(False)
    try:
        return peer.link.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        peer.link.setblocking(True)


def _report(host: str, port: int, about: dict[str, Any], waiting: _Waiting) -> dict[int, Peer]:
    """Another process than 0: connect to process 0, and wait until all have."""
    missing, why = [0], ""
    while not waiting.over:
        try:
            link = socket.create_connection((host, port), timeout=2)
        except OSError as error:
            why = f" ({(error.strerror or str(error)).lower()})"
            waiting.say([0], why)
            time.sleep(_TICK)
            continue
        keep_alive(link)
        say(link, **about)
        heard = False
        while not waiting.over:
            said = _line(link, _ANSWER)
            if said is None and heard:
                break  # process 0 has ended; it may be started again
            if not isinstance(said, dict):
                raise InputError(
                    f"What answers at {waiting.address} is not a process 0 that waits; it is "
                    f"another program, or a training that has begun with another process "
                    f"{waiting.process}."
                )
            heard = True
            if "fault" in said:
                raise InputError(said["fault"])
            if "everyone" in said:
                others = [Peer(*one) for one in said["everyone"] if one[0] != waiting.process]
                return {
                    peer.number: dataclasses.replace(peer, link=None if peer.number else link)
                    for peer in others
                }
            missing, why = said["missing"], ""
            waiting.say(missing)
        link.close()
        missing = [0] if not waiting.over else missing
    raise InputError(waiting.given_up(missing, why))


def listen(port: int) -> socket.socket:
    """Listen on a port of all addresses of this machine.

    Raises:
        InputError: the port is taken.
    """
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise InputError(
            f"--coordinator must name a free port, but {port} cannot be listened on here: "
            f"{error.strerror}; perhaps another process 0 does."
        ) from error


def keep_alive(link: socket.socket) -> None:
    """Have the system break the connection when the other machine does not answer for 10 s."""
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 4),
        ("TCP_KEEPALIVE", 4),  # its name on macOS
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 10_000),  # milliseconds
    ):
        if hasattr(socket, option):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def say(link: socket.socket | None, **message: Any) -> None:
    """Send a line; to whom does not live any more, nothing."""
    if link is not None:
        with contextlib.suppress(OSError):
            link.sendall(json.dumps(message).encode() + b"\n")


def _line(link: socket.socket, seconds: float) -> Any:
    """Return the next line's value; "" if it is none of ours, None at the end of the connection."""
    line = b""
    link.settimeout(seconds)
    try:
        while not line.endswith(b"\n"):
            if len(line) > _LONGEST:
                return ""
            more = link.recv(1)  # what follows the line is for others to read
            if not more:
                return None if not line else ""
            line += more
        return json.loads(line)
    except ConnectionError:
        return None
    except (OSError, ValueError):
        return ""
    finally:
        link.settimeout(None)
