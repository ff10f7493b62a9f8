"""Libraries of own terms: compiled by the system's compiler when first used, and kept.

A library holds the native loops (`nnlab/kernels/cpp/term_loops.h`) for one term, or one slope, and
the instruction set of this processor. To compile one takes about a second, once on a machine:
libraries stay in `~/.cache/nnlab/terms` (`XDG_CACHE_HOME` moves it) under a name made of everything
that they were compiled from, and any number of processes may share that folder. Delete it at will.
"""

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from nnlab.kernels.term_programs import NotNativeError

_HEADERS = Path(__file__).with_name("cpp")
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-ffp-contract=fast",
    "-fwrapv",  # whole numbers of a term wrap, as XLA's do
    "-fvisibility=hidden",
    "-fPIC",
    "-shared",
    "-w",
)
_AVX2 = ("-mavx2", "-mfma")
_INSTRUCTIONS = {  # as setup.py compiles the library's own loops
    "avx512": ("-mavx512f", "-mavx512dq", "-mavx512vl", *_AVX2),
    "avx2": _AVX2,
}
_PATIENCE = 120  # seconds for a compiler

_log = logging.getLogger("nnlab")
_lock = threading.Lock()
_added: dict[str, ctypes.CDLL] = {}  # kept loaded, since programs call into them


def add(source: str, native: ctypes.CDLL, instructions: str) -> str:
    """Make the loops of `source` known to the native kernels; gives their name for `rule`.

    Args:
        source: what `nnlab.kernels.term_source.source_of` wrote.
        native: the library that runs the loops.
        instructions: its instruction set.

    Raises:
        NotNativeError: there is no compiler, it does not take the source, or the library does not
            load.
    """
    if not hasattr(native, "nnlab_add_term"):
        raise NotNativeError("the native kernels were built before own terms, install nnlab again")
    command = (_compiler(), *_FLAGS, *_INSTRUCTIONS.get(instructions, ()))
    parts = (source, _headers(), " ".join(command))
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    with _lock:
        if name not in _added:
            library = _load(name, source, command)
            loops = ctypes.addressof(ctypes.c_char.in_dll(library, "nnlab_term"))
            native.nnlab_add_term(name.encode(), ctypes.c_void_p(loops))
            _added[name] = library
    return name


@functools.cache
def _compiler() -> str:
    wanted = os.environ.get("CXX")
    for candidate in [wanted] if wanted else ["c++", "g++", "clang++"]:
        if found := shutil.which(candidate):
            return found
    raise NotNativeError(f"there is no C++ compiler called {wanted or 'c++, g++ or clang++'}")


@functools.cache
def _headers() -> str:
    return "".join(path.read_text() for path in sorted(_HEADERS.glob("*.h")))


def _folder() -> Path:
    """Where libraries stay; a folder of this process alone where there is no cache."""
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(root or Path.home() / ".cache", "nnlab", "terms")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    return _own_folder()


@functools.cache
def _own_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="nnlab-terms-"))


def _load(name: str, source: str, command: tuple[str, ...]) -> ctypes.CDLL:
    path = _folder() / f"{name}.so"
    if not _is_whole(path):
        _compile(path, source, command)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NotNativeError(f"its library does not load ({error})") from error


def _is_whole(path: Path) -> bool:
    """Whether there is such a library as it was written: to load part of one ends the process."""
    try:
        contents = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(contents[:-32]).digest() == contents[-32:]


def _compile(path: Path, source: str, command: tuple[str, ...]) -> None:
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            file, library = Path(folder, "term.cc"), Path(folder, "term.so")
            file.write_text(source)
            subprocess.run(
                [*command, f"-I{_HEADERS}", str(file), "-o", str(library)],
                check=True,
                capture_output=True,
                timeout=_PATIENCE,
            )
            contents = library.read_bytes()
            library.write_bytes(contents + hashlib.sha256(contents).digest())
            os.replace(library, path)  # other processes see all of it or nothing
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        reason = next((line for line in said if "error" in line), "no message")
        raise NotNativeError(f"the C++ compiler ended with: {reason}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotNativeError(f"its library cannot be compiled ({error})") from error
    _log.info("Compiled %s in %.1f s.", path, time.perf_counter() - start)
