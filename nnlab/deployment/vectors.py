r"""An integer network as text files that a hardware engineer can replay, layer by layer.

`write_vectors` makes a folder of

===============  =================================================================================
layers.json      "values": of each value of the network its file, as below; "layers": of each node
                 its name, op, inputs (names of values), output (a name), attributes, arrays (by
                 their names in the table of `nnlab.deployment.graph`, which says what each op
                 computes), and of a node that sums "accumulator": low, high and the bits of two's
                 complement that hold every sum, whatever the image; 32 hold any number elsewhere
\*.hex           one word a line, the last axis fastest, in two's complement and as many
                 hexadecimal digits as the bits need: what Verilog's `$readmemh` reads
===============  =================================================================================

A file is described by {"file", "shape", "bits", "kind"}; the kind is "unsigned", "signed" or
"float" (IEEE single, of the images and the logits alone). A value's first axis counts the images.
"""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nnlab.costs.hardware import bits_holding
from nnlab.deployment.bounds import Bounds, accumulator_bounds
from nnlab.deployment.graph import IntegerNetwork, Node
from nnlab.deployment.network import run_nodes
from nnlab.deployment.texts import inputs_of
from nnlab.errors import InputError
from nnlab.paths import user_path, writing

_SUMS = frozenset(
    [
        *("conv", "dense", "adder_conv", "adder_dense", "binary_conv", "binary_dense"),
        *("sum", "sum_pool", "scores", "mix"),
    ]
)


def write_vectors(
    folder: str | os.PathLike[str],
    network: IntegerNetwork,
    images: Any,
    *,
    overwrite: bool = False,
) -> None:
    """Writes every layer of `network` with what goes in and comes out for `images`.

    Args:
        folder: new or empty; missing parents are made.
        network: an integer network.
        images: [batch, height, width, channels], float32 or uint8, or texts; a few.
        overwrite: remove the .hex files and the layers.json of a folder that holds such.

    Raises:
        InputError: the folder is not empty or cannot be written, or the network is not one.
    """
    folder = user_path(folder)
    bounds = accumulator_bounds(network)
    _make_empty(folder, overwrite)
    values = inputs_of(images) | jax.jit(run_nodes(network))(images)

    def file(name: str, array: Any, bits: int | None = None) -> dict[str, Any]:
        entry, text = _words(np.asarray(array), bits)
        stem = f"{len(list(folder.glob('*.hex'))):03d}_{re.sub(r'[^A-Za-z0-9]+', '_', name)}"
        (folder / f"{stem}.hex").write_text(text)
        return {"file": f"{stem}.hex"} | entry

    with writing(folder):
        described = {name: file(name, value) for name, value in values.items()}
        layers = []
        for node in network.nodes:
            arrays = {
                role: file(name, network.arrays[name], _bits_of(node, role))
                for role, name in node.arrays.items()
            }
            layers.append(
                {
                    "name": node.name,
                    "op": node.op,
                    "inputs": node.inputs,
                    "output": node.name,
                    "attributes": node.attributes,
                    "arrays": arrays,
                    "accumulator": _accumulator(bounds[node.name]) if node.op in _SUMS else None,
                }
            )
        text = json.dumps({"values": described, "layers": layers}, indent=1)
        (folder / "layers.json").write_text(text + "\n")


def _accumulator(bounds: Bounds) -> dict[str, int]:
    return {**bounds._asdict(), "bits": bits_holding(*bounds)}


def _bits_of(node: Node, role: str) -> int | None:
    return node.attributes.get("bits") if role == "kernel" else None


def _words(array: np.ndarray, bits: int | None) -> tuple[dict[str, Any], str]:
    kind = {"f": "float", "u": "unsigned"}.get(array.dtype.kind, "signed")
    bits = bits or 8 * array.itemsize
    unsigned = np.ascontiguousarray(array).reshape(-1).view(f"u{array.itemsize}")
    digits, mask = math.ceil(bits / 4), (1 << bits) - 1
    lines = [f"{int(word) & mask:0{digits}x}\n" for word in unsigned]
    return {"shape": list(array.shape), "bits": bits, "kind": kind}, "".join(lines)


def _make_empty(folder: Path, overwrite: bool) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        found = list(folder.iterdir())
        ours = [f for f in found if f.suffix == ".hex" or f.name == "layers.json"]
        if overwrite:
            for file in ours:
                file.unlink()
            found = [f for f in found if f not in ours]
    if found:
        raise InputError(f"{folder} is not empty; expected a new folder, or overwrite=True.")
