"""The choice between the bodies of a kernel: the native library, Pallas and XLA.

The library is compiled when the package is installed. Without it (no C++ compiler was at hand)
everything runs on XLA's bodies, and the first program that would have used it says so.
"""

import ctypes
import functools
import importlib.util
import threading
import warnings
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from nnlab.errors import InputError
from nnlab.kernels import native, native_integer
from nnlab.kernels.batch import match_varying
from nnlab.kernels.derivatives import differentiated_as

Body = Literal["xla", "native", "cpu"]

_KERNELS = (
    *("adder_conv", "adder_conv_input_gradient", "adder_conv_filter_gradient"),
    *("convolve", "convolve_input_gradient", "convolve_filter_gradient", "binary_conv"),
    *("adder_conv_uint8", "binary_conv_packed", "pack_signs", "ternary_dense_packed"),
)

_PALLAS = ("adder_conv", "adder_conv_input_gradient")
FLOATS = tuple(map(jnp.dtype, (jnp.float32, jnp.bfloat16, jnp.float16)))

_forced = jax.make_user_context(None)  # part of the cache key of `jax.jit`
_lock = threading.Lock()


class _Library(NamedTuple):
    instructions: str  # "" without a library
    problem: str
    loaded: Any = None


def status() -> dict[str, dict[str, str]]:
    """Report the body that serves each kernel, as {kernel: {platform: body}}.

    A body is "xla", "native" with the instruction set in use, as in "native (avx2)", or "pallas".
    The last two take float32 and narrower floats, or the integers in their names; float64 stays
    with XLA.
    """
    cpu = f"native ({_library().instructions})" if chooses_native() else "xla"
    gpu = "pallas" if _chooses_pallas() else "xla"
    return {
        name: {"cpu": cpu, "gpu": gpu if name in _PALLAS else "xla", "tpu": "xla"}
        for name in _KERNELS
    }


def use(body: Body) -> AbstractContextManager[Any]:
    """Make a context in which programs are traced with the named bodies.

    "native" means those of the library on a CPU and those in Pallas on a GPU. It is for tests and
    comparisons; "xla" is also for a program that is compiled for a CPU and a GPU at once, which
    Pallas cannot do. "cpu" is for programs that run on a CPU alone: they are traced in half the
    time, because nothing is traced for other platforms. A function jitted inside and called outside
    is traced again.

    Raises:
        InputError: there is no such body, or on a CPU no library of native ones.
    """
    if body not in ("xla", "native", "cpu"):
        raise InputError(f'use() takes "xla", "native" or "cpu", not {body!r}.')
    if body == "native" and not _library().instructions and jax.default_backend() == "cpu":
        raise InputError(f"use() needs the native kernels, but {_library().problem}.")
    return _forced(body)


def by_platform(
    xla: Callable[..., jax.Array],
    *operands: jax.Array,
    native: Callable[..., jax.Array] | None,
    pallas: Callable[..., jax.Array] | None = None,
    dtypes: Collection[DTypeLike] = FLOATS,
) -> jax.Array:
    """Run `native` in a CPU's part of the program, `pallas` in an Nvidia GPU's, else `xla`.

    The first two see arrays of one dtype out of `dtypes`, none of them empty, and have the
    derivatives of `xla`. A kernel has no native body here if that is None.
    """
    operands = tuple(match_varying(*operands))
    bodies = {}
    if are_native(operands, dtypes):
        if native is not None and chooses_native():
            bodies["cpu"] = native
        if pallas is not None and _chooses_pallas():
            bodies["cuda"] = pallas

    # The types of the branches must agree, and that of a foreign call varies over nothing.
    def alike_to_xla(body):
        return differentiated_as(lambda *o: match_varying(body(*o), *o)[0], xla)

    alike = {platform: alike_to_xla(body) for platform, body in bodies.items()}
    if _forced.value == "cpu":
        return alike.get("cpu", xla)(*operands)
    return lax.platform_dependent(*operands, **alike, default=xla) if alike else xla(*operands)


def are_native(operands: Collection[jax.Array], dtypes: Collection[DTypeLike] = FLOATS) -> bool:
    """Whether native bodies take these operands."""
    given = {operand.dtype for operand in operands}
    return len(given) == 1 and given <= set(dtypes) and all(operand.size for operand in operands)


def is_for_cpu() -> bool:
    """Whether the program that is traced will run on a CPU, as far as one can tell."""
    return jax.default_backend() == "cpu" or _forced.value in ("native", "cpu")


def chooses_native() -> bool:
    """Whether a CPU's part of a program may take native bodies; says once if none were built."""
    if _forced.value == "xla":
        return False
    if not _library().instructions and jax.default_backend() == "cpu":
        _say_what_is_missing()
    return bool(_library().instructions)


def _chooses_pallas() -> bool:
    return _forced.value not in ("xla", "cpu") and _gpus_run_triton()


@functools.cache
def _gpus_run_triton() -> bool:
    """Whether the GPUs here, if any, are of compute capability 8 (Ampere) at least."""
    try:
        gpus = jax.local_devices(backend="cuda")
    except RuntimeError:
        return True
    return all(float(gpu.compute_capability) >= 8 for gpu in gpus)


@functools.cache
def _say_what_is_missing() -> None:
    warnings.warn(
        f"nnlab runs on XLA's bodies of its convolutions, because {_library().problem}. On this "
        "CPU training takes two to four times as long. Install a C++17 compiler and nnlab again.",
        stacklevel=2,
    )


def instructions() -> str:
    """The instruction set of the native bodies, "" where there are none."""
    return _library().instructions


def library() -> Any:
    """The library of the native bodies, as `ctypes` loads it."""
    return _library().loaded


def _library() -> _Library:
    with _lock:
        return _load()


@functools.cache
def _load() -> _Library:
    try:
        found = importlib.util.find_spec("nnlab.kernels._native")
    except ImportError:
        found = None
    if found is None or found.origin is None:
        return _Library("", "the native ones were not built")
    try:
        library = ctypes.CDLL(found.origin)
        for name in (*native.HANDLERS, *native_integer.HANDLERS):
            handler = jax.ffi.pycapsule(getattr(library, name))
            jax.ffi.register_ffi_target(name, handler, platform="cpu")
    except Exception as error:  # whatever a foreign library or another release of XLA objects to
        return _Library("", f"the native ones cannot be loaded ({error})")
    library.nnlab_instruction_set.restype = ctypes.c_char_p
    instructions = library.nnlab_instruction_set()
    if instructions is None:
        raise InputError(
            "NNLAB_KERNELS_ISA names an instruction set that this processor does not have;"
            " expected avx512vbmi, avx512vnni, avx512, avx2 or sse2 on x86-64, neon on aarch64."
        )
    return _Library(instructions.decode(), "", library)
