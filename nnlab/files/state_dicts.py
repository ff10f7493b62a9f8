"""State dicts of PyTorch as NumPy arrays.

A `.safetensors` file is a header and bytes, and is read without PyTorch. A `.pt` or `.pth` file is
a pickle, that is a program; it is read by `torch.load(weights_only=True)`, which builds tensors and
plain containers and refuses to call anything else. PyTorch before 2.6 could be tricked into calling
it all the same (CVE-2025-32434), so those versions are refused.

Reference:
    https://huggingface.co/docs/safetensors; https://docs.pytorch.org/docs/stable/generated/torch.load.
"""

import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from nnlab.errors import InputError, needs
from nnlab.files.container import replacing
from nnlab.paths import reading, user_path

_DTYPES = {  # of safetensors
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": ml_dtypes.bfloat16},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool"},
}


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the arrays of a state dict by their names, in the file's order.

    Args:
        path: a `.safetensors` file, or a state dict that `torch.save` wrote in either of its
            formats. If the file is a checkpoint that holds one under "state_dict", that one is
            read. A prefix "module." of all names, which `DataParallel` adds, is dropped.

    Returns:
        {name: array}, read-only, in the shapes and dtypes of the file (bfloat16 from `ml_dtypes`).
        Tensors of a `.pt` file that share a storage share memory.

    Raises:
        InputError: the file cannot be read, is damaged or of another format, or holds something
            else than arrays.
        MissingPackageError: safetensors, or PyTorch for a `.pt` file, is not installed.
    """
    path = user_path(path)
    read = _read_safetensors if path.suffix == ".safetensors" else _read_torch
    try:
        with reading(path):
            arrays = read(path)
    except InputError:
        raise
    except Exception as error:  # damaged files make both readers raise many types
        said = str(error).partition("WeightsUnpickler error: ")[2] or str(error)
        sentence = re.split(r"\.?\s*(?:\n|\. |$)", said.strip())[0] or type(error).__name__
        if forbidden := re.search(r"GLOBAL (\S+)", str(error)):
            sentence = f"it names {forbidden[1]}"
        raise InputError(f"{path} is damaged or no state dict: {sentence}.") from error
    if not arrays:
        raise InputError(f"{path} holds no arrays, expected a state dict.")
    if all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def read_sharded_state_dict(index: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a state dict that lies in several files, by the index of Hugging Face's.

    Args:
        index: JSON with "weight_map", {name of a tensor: name of its file beside the index}, such
            as `model.safetensors.index.json`.

    Returns:
        {name: array}, as `read_state_dict`.

    Raises:
        InputError: the index is none, a file is missing or outside of its folder, or a file and the
            index disagree on what it holds; each file or tensor is named.
    """
    index = user_path(index)
    try:
        with reading(index):
            places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        tensors: dict[str, set[str]] = {}
        for name, file in places.items():
            tensors.setdefault(file, set()).add(name)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f'{index} is no index, expected JSON with "weight_map".') from error
    if not tensors:
        raise InputError(f"{index} names no tensors, expected those of a state dict.")
    if odd := [file for file in tensors if Path(file).name != file]:
        raise InputError(f"{index} names {odd[0]}, expected a file in its own folder.")
    if missing := [file for file in sorted(tensors) if not (index.parent / file).is_file()]:
        raise InputError(f"{index} names {', '.join(missing)}, which {index.parent} does not have.")
    arrays: dict[str, np.ndarray] = {}
    for file, names in sorted(tensors.items()):
        found = read_state_dict(index.parent / file)
        odds = {"lacks": names - found.keys(), "also holds": found.keys() - names}
        if any(odds.values()):
            told = (f"{verb} {', '.join(sorted(odd))}" for verb, odd in odds.items() if odd)
            raise InputError(f"{index.parent / file} {' and '.join(told)}, unlike its index.")
        arrays |= found
    return arrays


def write_state_dict(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], *, overwrite: bool = False
) -> None:
    """Write the arrays of a state dict to a `.safetensors` file, whole or not at all.

    Args:
        path: the file; missing parent folders are made.
        arrays: {name: array}, such as `nnlab.files.lend` gives.
        overwrite: replace an existing file.

    Raises:
        InputError: the file exists or cannot be written.
        MissingPackageError: safetensors is not installed.
    """
    with needs("files"):
        from safetensors.numpy import save_file
    with replacing(path, overwrite) as partial:
        save_file(dict(arrays), partial, {"format": "pt"})  # without which transformers refuses it


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    with needs("files"):
        from safetensors import deserialize

    arrays = {}
    for name, entry in deserialize(path.read_bytes()):
        if entry["dtype"] not in _DTYPES:
            raise InputError(f"{path} holds {name} as {entry['dtype']}, which NumPy does not have.")
        array = np.frombuffer(bytes(entry["data"]), _DTYPES[entry["dtype"]])
        arrays[name] = array.reshape(entry["shape"])
    return arrays


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    with needs("torch"):
        import torch

    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        raise InputError(f"{path} needs PyTorch 2.6 or newer to be read, not {torch.__version__}.")
    if zipfile.is_zipfile(path):  # torch.load does not look at the checksums
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise InputError(f"{path} is damaged: {damaged} does not have its checksum.")
    found = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise InputError(f"{path} holds a {type(found).__name__}, expected a state dict.")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise InputError(
                f"{path} holds a {type(value).__name__} under {name!r:.80}, expected a state dict "
                "of arrays or one under 'state_dict'."
            )
    return {name: _array(tensor.detach()) for name, tensor in found.items()}


def _array(tensor: Any) -> np.ndarray:
    import torch

    if tensor.dtype == torch.bfloat16:  # which NumPy lacks
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
