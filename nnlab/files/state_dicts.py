"""State dicts of PyTorch as arrays, without PyTorch and without running what a file says.

A `.pt` file is a pickle, that is a program that calls whatever it names. Here it may name a
dictionary, the two functions that make a tensor and the types of storages, all of which are our
own; any other name ends the reading before anything is called. The bytes of the storages lie beside
the pickle, and which of them a tensor takes is checked against their number.

===============  ==========================================================================
format           layout
===============  ==========================================================================
`.safetensors`   a header of names, dtypes and shapes, then bytes
`.pt`, zip       `NAME/data.pkl`, and each storage as `NAME/data/KEY`, not compressed
`.pt`, older     five pickles (a magic number, a version, about the machine, the object, the
                 keys of its storages), then each storage's number of elements and its bytes
===============  ==========================================================================

The older one is what PyTorch wrote before 1.6, and many of torchvision's files are of it.

References:
    https://huggingface.co/docs/safetensors; torch/serialization.py and torch/_utils.py of PyTorch.
"""

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from nnlab.errors import InputError

_STORAGES = {
    **{"DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16"},
    **{"LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16"},
    **{"CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool"},
    "BFloat16Storage": "bfloat16",
}
_SAFETENSORS = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool"},
}
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a state dict by their names, in the file's order.

    Args:
        path: a `.safetensors` file, or what `torch.save` wrote of a state dict in either of its
            formats. Of a checkpoint that holds one under "state_dict", that one is taken. A
            "module." in front of every name, which `DataParallel` leaves there, is dropped.

    Returns:
        {name: array}, read-only, of the shapes and dtypes in the file (bfloat16 as of `ml_dtypes`).
        Arrays that share a storage share memory.

    Raises:
        InputError: the file cannot be read, is cut off or of another format, names anything but
            what tensors are made of, or holds something else than arrays; or an array reaches
            beyond its storage.
    """
    path = Path(path)
    try:
        arrays = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    except _Refusal as refusal:
        raise InputError(f"{path} {refusal}.") from refusal
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # a pickle can be damaged in ways that make it raise anything
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0].rstrip(".")
        raise InputError(f"{path} is damaged or no state dict of PyTorch: {reason}.") from error
    if not arrays:
        raise InputError(f"{path} holds no arrays, expected a state dict.")
    if all(name.startswith("module.") for name in arrays):
        return {name.removeprefix("module."): array for name, array in arrays.items()}
    return arrays


class _Refusal(Exception):
    """What a file is or holds, to be said behind its path."""


class _Storage(NamedTuple):
    dtype: str
    key: str
    numel: int


class _Tensor(NamedTuple):
    """Elements of a storage; offset and strides count elements."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import deserialize

    arrays = {}
    for name, entry in deserialize(path.read_bytes()):
        if entry["dtype"] not in _SAFETENSORS:
            raise _Refusal(f"holds {name} as {entry['dtype']}, which is not read here")
        dtype = _dtype(_SAFETENSORS[entry["dtype"]])
        arrays[name] = np.frombuffer(bytes(entry["data"]), dtype).reshape(entry["shape"])
    return arrays


def _torch(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if not start:
            raise _Refusal("is empty, expected a state dict")
        return _zip(file) if start == b"PK\3\4" else _older(file, path.stat().st_size)


def _zip(file: IO[bytes]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise _Refusal("is a compressed zip file, which PyTorch does not write")
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _Refusal(f"is a zip file with {len(pickles)} data.pkl, expected one")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise _Refusal("is of a big-endian machine, which is not read here")
        with archive.open(pickles[0]) as pickled:
            unpickler = _Unpickler(pickled)
            found = unpickler.load()
        data = {key: archive.read(f"{root}data/{key}") for key in unpickler.storages}
        return _arrays(found, data)


def _older(file: IO[bytes], size: int) -> dict[str, np.ndarray]:
    if _Unpickler(file).load() != _MAGIC:
        raise _Refusal("does not begin as a file of torch.save")
    if (version := _Unpickler(file).load()) != _VERSION:
        raise _Refusal(f"is of version {version!r} of PyTorch's format, expected {_VERSION}")
    if not _Unpickler(file).load()["little_endian"]:
        raise _Refusal("is of a big-endian machine, which is not read here")
    unpickler = _Unpickler(file)
    found, data = unpickler.load(), {}
    for key in _Unpickler(file).load():
        if key not in unpickler.storages:
            raise _Refusal(f"has a storage {key!r:.80} that nothing refers to")
        storage = unpickler.storages[key]
        numel = int.from_bytes(file.read(8), "little")
        wanted = numel * _dtype(storage.dtype).itemsize
        if wanted > size - file.tell():
            raise _Refusal(f"ends within storage {key}, which should have {wanted} bytes")
        data[key] = file.read(wanted)
    return _arrays(found, data)


class _Unpickler(pickle.Unpickler):
    """Makes dictionaries, plain values and `_Tensor`s; `storages` are those that it has met.

    What it hands to the pickle cannot be changed by it: an immutable type, strings, and functions
    made anew for each pickle.
    """

    def __init__(self, file: IO[bytes]):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}
        self._allowed: dict[tuple[str, str], Callable[..., Any] | str] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor"): lambda *args: _Tensor(*args),
            ("torch._utils", "_rebuild_tensor_v2"): _rebuilder(),
            ("torch._utils", "_rebuild_parameter"): lambda data, grad, hooks: data,
            **{("torch", name): dtype for name, dtype in _STORAGES.items()},
        }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        found = self._allowed.get((module_name, global_name))
        if found is None:
            raise _Refusal(
                f"names {module_name}.{global_name}, which no state dict needs, and is not read on"
            )
        return found

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, numel, *view = pid
        if kind != "storage" or dtype not in _STORAGES.values() or any(view):
            raise _Refusal(f"refers to {pid!r:.80}, expected a storage")
        if not isinstance(key, str) or type(numel) is not int or numel < 0:
            raise _Refusal(f"has a storage {key!r:.80} of {numel!r:.80} elements")
        storage = _Storage(dtype, key, numel)
        if self.storages.setdefault(key, storage) != storage:
            raise _Refusal(f"has two storages {key}")
        return storage


def _rebuilder() -> Callable[..., _Tensor]:
    def rebuild(storage, offset, size, stride, grad, hooks, metadata=None) -> _Tensor:
        if metadata:
            raise _Refusal(f"has a tensor with {metadata!r:.80}, which is not read here")
        return _Tensor(storage, offset, size, stride)

    return rebuild


def _arrays(found: Any, data: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise _Refusal(f"holds a {type(found).__name__}, expected a state dict")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise _Refusal(
                f"holds a {type(value).__name__} under {name!r:.80}, expected a state dict of "
                "arrays or one under 'state_dict'"
            )
    return {name: _array(name, tensor, data) for name, tensor in found.items()}


def _array(name: str, tensor: _Tensor, data: Mapping[str, bytes]) -> np.ndarray:
    storage, offset, size, stride = tensor
    numbers = [offset, *size, *stride]
    if (
        not isinstance(storage, _Storage)
        or not all(type(n) is int and n >= 0 for n in numbers)
        or len(size) != len(stride)
    ):
        raise _Refusal(f"has {name} from {offset!r:.80} on by {size!r:.80} and {stride!r:.80}")
    if storage.key not in data:
        raise _Refusal(f"lacks storage {storage.key} of {name}")
    dtype, buffer = _dtype(storage.dtype), data[storage.key]
    if len(buffer) != storage.numel * dtype.itemsize:
        raise _Refusal(
            f"has {len(buffer)} bytes in storage {storage.key}, expected {storage.numel} elements "
            f"of {dtype}"
        )
    if 0 in size:
        return np.empty(size, dtype)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if last >= storage.numel:
        raise _Refusal(
            f"has {name} reach element {last} of a storage with {storage.numel} elements"
        )
    strides = [s * dtype.itemsize for s in stride]
    return np.ndarray(size, dtype, buffer, offset * dtype.itemsize, strides)


def _dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
