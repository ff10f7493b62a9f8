"""One file of arrays that anyone can read and that shows every change: safetensors with checksums.

The file is a plain safetensors file (https://github.com/huggingface/safetensors): eight bytes with
the length of a JSON header, the header, and the arrays. Its metadata hold two strings:

==========  =====================================================================================
"nnlab"     JSON: "format" (the version of this layout), what the writer says of the network, and
            "tensors", for each array {"sha256": ...} of its dtype, shape and bytes; of an array
            that is packed, "shape", "dtype" and "code" also (`nnlab.files.packing`)
"sha256"    of the string "nnlab"
==========  =====================================================================================

So a flipped bit in an array is found by that array's digest, one in the header by the header's, and
a cut-off file by safetensors. A file gets its name when all of it is on disk.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401, NumPy's name bfloat16
import numpy as np

from nnlab.errors import InputError, needs
from nnlab.files.packing import Code, pack, unpack
from nnlab.paths import reading, user_path, writing

FORMAT = 1
_DTYPES = tuple(
    np.dtype(name)
    for name in (
        *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
        *("float16", "float32", "float64", "bfloat16"),
    )
)


class Contents(NamedTuple):
    """What a file holds: what the writer said of the network, and the arrays, unpacked."""

    about: dict[str, Any]
    arrays: dict[str, np.ndarray]


def write(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    *,
    about: Mapping[str, Any],
    codes: Mapping[str, Code] | None = None,
    overwrite: bool = False,
) -> None:
    """Writes the file `path`, whole or not at all.

    Args:
        path: the file; missing parent folders are made.
        arrays: by name; booleans, integers and floats up to 64 bits, and bfloat16, of any shape.
        about: what else to keep, as JSON can hold it; the names "format" and "tensors" are taken.
        codes: of the arrays to pack.
        overwrite: replace a file that is there.

    Raises:
        InputError: the file exists, cannot be written, an array has another dtype or does not fit
            its code, or `about` is not JSON.
    """
    stored, tensors = {}, {}
    for name, array in arrays.items():
        if array.dtype not in _DTYPES:
            raise InputError(f"array {name!r} is {array.dtype}; expected a NumPy number or bool.")
        entry: dict[str, Any] = {}
        if code := (codes or {}).get(name):
            entry = {"shape": array.shape, "dtype": array.dtype.name, "code": code._asdict()}
            array = pack(array, code)
        array = np.array(array, array.dtype.newbyteorder("<"), order="C")
        stored[name], tensors[name] = array, entry | {"sha256": _digest(array)}
    header = {"format": FORMAT, **about, "tensors": tensors}
    try:
        text = json.dumps(header, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} cannot hold what is not JSON: {error}.") from error
    digest = hashlib.sha256(text.encode()).hexdigest()
    with replacing(path, overwrite) as partial:
        with needs("files"):
            from safetensors.numpy import save

        partial.write_bytes(save(stored, metadata={"nnlab": text, "sha256": digest}))


def read(path: str | os.PathLike[str]) -> Contents:
    """Reads what `write` wrote.

    Raises:
        InputError: there is no such file, it was written by something else or by a later nnlab, or
            it is damaged; where an array is, it is named.
    """
    with needs("files"):
        from safetensors import SafetensorError, safe_open

    path = user_path(path)
    with reading(path):
        if not path.is_file():
            raise InputError(f"there is no file {path}; expected one that nnlab wrote.")
        path.open("rb").close()
    try:
        with safe_open(path, framework="numpy") as file:
            metadata, names = file.metadata() or {}, file.keys()
            stored = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise InputError(f"{path} is damaged or no safetensors file: {error}.") from error
    about = _checked_header(path, metadata)
    tensors = about.pop("tensors")
    if stored.keys() != tensors.keys():
        names = sorted(stored.keys() ^ tensors.keys())
        raise InputError(f"{path} is damaged: its header and its arrays differ in {names}.")
    arrays = {}
    for name, entry in tensors.items():
        if _digest(stored[name]) != entry["sha256"]:
            raise InputError(f"{path} is damaged: array {name!r} is not what was written.")
        arrays[name] = stored[name]
        if "code" in entry:
            code = Code(**entry["code"])
            arrays[name] = unpack(stored[name], code, entry["shape"], entry["dtype"])
    return Contents(about, arrays)


def _checked_header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if metadata.keys() != {"nnlab", "sha256"}:
        raise InputError(
            f"{path} is damaged or not of nnlab: its metadata are {sorted(metadata)}, expected"
            " ['nnlab', 'sha256']."
        )
    if hashlib.sha256(metadata["nnlab"].encode()).hexdigest() != metadata["sha256"]:
        raise InputError(f"{path} is damaged: its header is not what was written.")
    about = json.loads(metadata["nnlab"])
    version = about.pop("format")
    if version != FORMAT:
        raise InputError(f"{path} has format {version}; this nnlab reads format {FORMAT}.")
    return about


def _digest(array: np.ndarray) -> str:
    digest = hashlib.sha256(f"{array.dtype.name} {list(array.shape)} ".encode())
    digest.update(array.tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], overwrite: bool) -> Iterator[Path]:
    """Gives the path of a new file that takes the place of `path` if the block ends well.

    Raises:
        InputError: `path` exists and `overwrite` is false, or it cannot be written.
    """
    path = user_path(path)
    with writing(path):
        if path.is_dir() or (path.exists() and not overwrite):
            raise InputError(f"{path} already exists; expected a new file, or overwrite=True.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            partial = Path(folder) / path.name
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
