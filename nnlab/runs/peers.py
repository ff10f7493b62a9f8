"""A watch over the processes that train as one, so that a death is a sentence, and soon.

The connections of the roll call (`nnlab.runs.roll_call`) stay open. When a process dies, its system
closes its connection at once; when a machine dies or cannot be reached, the system at the other end
breaks it within 12 seconds. A thread in process 0 hears that and tells the others, and each process
ends with a sentence that says who is missing and where the training goes on from.

JAX has a watch of its own, which ends the process with a stack trace, after 100 seconds or as soon
as the connection to process 0 breaks. So that ours is first, the others reach JAX's service through
a `relay` within their own process, which keeps their end open when that of process 0 breaks.
"""

import atexit
import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from nnlab import console
from nnlab.errors import DivergedError, Interrupted
from nnlab.runs.roll_call import Peer, keep_alive, say

_BEAT = 2.0  # seconds between two signs of life
_SILENCE = 60.0  # seconds without one: a process that hangs or is stopped, which JAX ends after 100
_GRACE = 5.0  # seconds for this process to end by itself, when it may have the same reason
_goes_on: list[Callable[[], str]] = []


@contextlib.contextmanager
def going_on(sentence: Callable[[], str]) -> Iterator[None]:
    """In the block, let `sentence` say where the training goes on from, if a process dies.

    It still does after an error in the block, of which the death may be the cause.
    """
    _goes_on[:] = [sentence]
    yield
    _goes_on.clear()


class Watch:
    """The watch of one process over all others, from its construction to the end of the process.

    Args:
        process: the number of this one.
        processes: how many there are.
        peers: the others by their numbers, from the roll call.
    """

    def __init__(self, process: int, processes: int, peers: dict[int, Peer]):
        self._process, self._processes, self._peers = process, processes, peers
        self._left: dict[int, str | None] = {}  # those that have come to their end, and errors
        self._status: int | None = None  # of this process, once it comes to its end
        self._over, self._lock = False, threading.Lock()
        for peer in peers.values():
            if peer.link is not None:
                threading.Thread(target=self._hear, args=(peer,), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def say_goodbye(self) -> None:
        """Have the end of this process, whatever its cause, told to the others."""
        os.register_at_fork(after_in_child=self._forget)
        console.farewells.append(self.leave)
        self._excepthook, sys.excepthook = sys.excepthook, self._uncaught
        atexit.register(self._at_exit)

    def leave(self, error: BaseException | None, status: int) -> None:
        """Tell the others that this process comes to its end, and why."""
        if self._status is None:
            self._status = status
            # All processes come to these together, and process 0 may still have to save.
            together = error is None or isinstance(error, DivergedError | Interrupted)
            why = str(error) or type(error).__name__
            self._tell(left=self._process, why=None if together else why[:2000])

    def _tell(self, **message: Any) -> None:
        for peer in self._peers.values():
            say(peer.link, **message)

    def _beat(self) -> None:
        while True:
            time.sleep(_BEAT)
            self._tell()

    def _hear(self, peer: Peer) -> None:
        assert peer.link is not None
        peer.link.settimeout(_SILENCE)
        how = "ended without a word, as one that is killed does"
        try:
            for line in peer.link.makefile("rb"):
                message = json.loads(line)
                if "left" in message:
                    self._hear_left(message["left"], message["why"])
                elif "dead" in message:
                    self._end(message["dead"], message["how"])
        except TimeoutError as error:
            if error.errno is None:
                how = f"has given no sign of life for {_SILENCE:.0f} s"
            else:
                how = "cannot be reached any more"
        except (OSError, ValueError) as error:
            if not isinstance(error, ConnectionResetError):
                how = f"cannot be reached any more ({error})"
        if peer.number not in self._left:
            self._end(peer.number, how)
        elif self._status is not None and peer.number == 0 and self._left[0] is None:
            self._exit(self._status)  # nobody is left to wait for

    def _hear_left(self, number: int, why: str | None) -> None:
        self._left[number] = why
        if self._process == 0:
            self._tell(left=number, why=why)
        if why is not None:
            rest = f"ended: {why.rstrip('.')}"
            _later(_GRACE, self._end, number, rest)

    def _end(self, number: int, how: str) -> None:
        """End this process, because another one has died."""
        with self._lock:
            if self._over or number == self._process:
                return
            self._over = True
        if self._process == 0:
            self._tell(dead=number, how=how)
        if self._status:  # this process has said its sentence already
            self._exit(self._status)
        _later(3, self._exit, 1)  # the disk may not answer
        goes_on = "start all processes again, with --resume to go on from what is saved"
        for sentence in _goes_on[-1:]:
            with contextlib.suppress(Exception):
                goes_on = sentence()
        peer = self._peers[number]
        text = (
            f"Process {number} of {self._processes} (on {peer.host}, pid {peer.pid}) {how}; "
            f"{goes_on}."
        )
        with contextlib.suppress(OSError, ValueError):
            print(f"\n{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)
        self._exit(1)

    def _exit(self, status: int) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status)

    def _uncaught(self, kind: Any, error: BaseException, trace: Any) -> None:
        """Give the watch time to say why, before a trace shows how a computation has failed."""
        if isinstance(error, RuntimeError | ValueError | OSError):  # as JAX and Gloo raise them
            time.sleep(_GRACE)
        first = str(error).strip().partition("\n")[0]
        self.leave(RuntimeError(f"{kind.__name__}: {first}"), 1)
        self._excepthook(kind, error, trace)

    def _at_exit(self) -> None:
        self.leave(None, 0)
        if self._status:
            self._exit(self._status)  # JAX would wait for the others

    def _forget(self) -> None:
        """In a forked process, close what would keep the connections open after our own end."""
        for peer in self._peers.values():
            if peer.link is not None:
                peer.link.close()
        atexit.unregister(self._at_exit)


def _later(seconds: float, action: Callable[..., None], *arguments: Any) -> None:
    timer = threading.Timer(seconds, action, arguments)
    timer.daemon = True
    timer.start()


def relay(host: str, port: int) -> int:
    """Forward connections from a new port of this machine to that of process 0; return the port."""
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            near = server.accept()[0]
            threading.Thread(target=connect, args=(near,), daemon=True).start()

    def connect(near: socket.socket) -> None:
        while True:
            try:
                far = socket.create_connection((host, port), timeout=5)
                break
            except OSError:  # process 0 starts JAX's service after the roll call
                time.sleep(0.1)
        far.settimeout(None)
        keep_alive(far)
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=pump, args=(far, near, False), daemon=True).start()
        pump(near, far, True)

    def pump(source: socket.socket, target: socket.socket, ends: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        if ends:
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=accept, daemon=True).start()
    return server.getsockname()[1]
