"""An integer network in one file: its nodes in the header, its arrays beside them.

The header (`nnlab.files.container`) says "nodes", which are those of
`nnlab.deployment.graph` field by field, and so hold the scales at both ends and every shift
between, and "about", what the writer wants to tell: where the network comes from, its accuracy. An
array of integers is packed in as many bits as its range takes (`nnlab.files.packing`) where
that saves more bytes than it costs in the header: adder weights of 4 bits that are not negative
take three, words of signs as many bits as they have signs. What is read is equal to what was
written, to the bit.
"""

import dataclasses
import os
from typing import Any

import numpy as np

from nnlab.deployment.graph import IntegerNetwork, Node
from nnlab.errors import InputError
from nnlab.files import container
from nnlab.files.packing import Code, narrowest_code, packed_bytes

_CODE_IN_HEADER = 128  # bytes, about


def save_network(
    path: str | os.PathLike[str],
    network: IntegerNetwork,
    *,
    about: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Writes `network` to one file.

    Args:
        path: the file; missing parent folders are made.
        network: its arrays are integers of 32 bits at most.
        about: what else to keep in the header, as JSON can hold it.
        overwrite: replace a file that is there.

    Raises:
        InputError: the file exists or cannot be written, or an array cannot be stored.
    """
    arrays = {name: np.asarray(array) for name, array in network.arrays.items()}
    codes = {name: code for name, array in arrays.items() if (code := _shorter(array))}
    header = {"about": about or {}, "nodes": [dataclasses.asdict(n) for n in network.nodes]}
    container.write(path, arrays, about=header, codes=codes, overwrite=overwrite)


def load_network(path: str | os.PathLike[str]) -> IntegerNetwork:
    """Reads what `save_network` wrote.

    Raises:
        InputError: there is no such file, it is damaged, or holds something else.
    """
    header, arrays = container.read(path)
    try:
        nodes = [Node(**{**node, "inputs": tuple(node["inputs"])}) for node in header["nodes"]]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no integer network: its header has {sorted(header)}."
        ) from (error)
    return IntegerNetwork(tuple(nodes), arrays)


def _shorter(array: np.ndarray) -> Code | None:
    if array.dtype.kind not in "iu" or array.itemsize > 4:
        return None
    code = narrowest_code(array)
    return code if array.nbytes - packed_bytes(array.size, code) > _CODE_IN_HEADER else None
