r"""An integer network as C source without dependencies, for whatever has a C99 compiler.

`write_c` writes NAME.h and NAME.c, by default nnlab.h and nnlab.c, with one function

    int nnlab_run(const float *image, float *logits);

of one image [height, width, channels] (or `const uint8_t *`, where `dtype` is uint8), which returns
the number of the largest logit. Numbers are those of `nnlab.deployment.reference` to the bit: no
operation is left to the compiler's choice, so neither its options nor the processor change them.
There is no allocation, no library call, and no state but buffers: two threads need two copies.

Weights are constant arrays. The values between nodes lie in one static array for each type of
integer, and use its places again as soon as no later node needs what is there.
"""

import functools
import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from nnlab.deployment.c_steps import C_TYPES, HELPERS, Extent, body_of, step_body
from nnlab.deployment.graph import IntegerNetwork, Node
from nnlab.deployment.network import run_nodes
from nnlab.errors import InputError
from nnlab.files.container import replacing
from nnlab.paths import user_path


class _Place(NamedTuple):
    """Where a value lies: its type, and its first number and their number in the type's array."""

    dtype: np.dtype
    start: int
    size: int


def write_c(
    folder: str | os.PathLike[str],
    network: IntegerNetwork,
    image_shape: Sequence[int],
    *,
    dtype: DTypeLike = jnp.float32,
    name: str = "nnlab",
    overwrite: bool = False,
) -> None:
    """Write `network` as NAME.h and NAME.c.

    Args:
        folder: where to; made if it is not there.
        network: an integer network, as `nnlab.deployment.quantize` gives.
        image_shape: [height, width, channels] or [features] of one image.
        dtype: of the images, float32 or uint8.
        name: of the files, and what the names that others see in C begin with.
        overwrite: replace files that are there.

    Raises:
        InputError: a file exists or cannot be written, the network is none or does not end in
            logits, it does not take such images, or `dtype` or `name` is not as above.
    """
    kind = np.dtype(dtype)
    if kind not in (np.float32, np.uint8):
        raise InputError(f"images in C are float32 or uint8, not {kind}.")
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):
        raise InputError(f"{name!r} is no name in C, expected letters, digits and underscores.")
    if not network.nodes or network.nodes[-1].op != "dequantize":
        raise InputError("the network does not end in logits (dequantize), expected a whole one.")
    for node in network.nodes:
        body_of(node)  # before shapes, which texts have others of
    image = jax.ShapeDtypeStruct((1, *image_shape), kind)
    values = {"images": image, **_values(network, image)}
    places = _plan(network.nodes, values)
    memory = _memory(places)
    parts = [_step(number, node, network, values) for number, node in enumerate(network.nodes)]
    constants = [line for part in parts for line in part.constants]
    functions = [part.function for part in parts]
    calls = [_call(number, node, places) for number, node in enumerate(network.nodes)]
    sizes = [value.size for value in (image, values[network.nodes[-1].name])]
    weights = sum(part.bytes for part in parts)
    activations = sum(size * dtype.itemsize for dtype, size in memory.items())
    about: dict[str, Any] = {"name": name, "upper": name.upper(), "image": C_TYPES[kind.name]}
    about |= {"shape": " x ".join(map(str, image_shape)), "image_size": sizes[0]}
    about |= {"logits": sizes[1], "weights": weights, "activations": activations}
    buffers = [f"static {C_TYPES[d.name]} {_buffer(d)}[{size}];" for d, size in memory.items()]
    about["calls"] = "\n".join(filter(None, calls))
    begin = f'/* Written by nnlab: an integer network, see {name}.h. */\n#include "{name}.h"'
    texts = [begin, HELPERS, "\n".join(constants), "\n".join(buffers), *functions]
    source = "\n\n".join(filter(None, [*texts, _RUN.format(**about)]))
    folder = user_path(folder)
    with (
        replacing(folder / f"{name}.h", overwrite) as first,
        replacing(folder / f"{name}.c", overwrite) as second,
    ):
        first.write_text(_HEADER.format(**about))
        second.write_text(source)


_HEADER = """\
/* Written by nnlab: an integer network. {weights} bytes of constants, {activations} of buffers. */
#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

#define {upper}_IMAGE_SIZE {image_size} /* {shape} */
#define {upper}_LOGITS {logits}

/* Computes the logits of one image, whose last axis runs fastest, and returns the number of the
   largest. Its buffers are static: one call at a time. */
int {name}_run(const {image} *image, float *logits);

#endif
"""

_RUN = """\
int {name}_run(const {image} *image, float *logits)
{{
    int best = 0;
{calls}
    for (int i = 1; i < {logits}; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}}
"""


def _values(network: IntegerNetwork, image: jax.ShapeDtypeStruct) -> dict[str, Any]:
    try:
        return jax.eval_shape(run_nodes(network), image)
    except InputError:
        raise
    except Exception as error:  # whatever JAX says of shapes that do not fit
        said = str(error).strip().split("\n")[0].rstrip(".")
        raise InputError(f"the network takes no images {image.shape[1:]}: {said}.") from error


def _plan(nodes: Sequence[Node], values: dict[str, Any]) -> dict[str, _Place]:
    """A place for each value, the largest first and each as low as it can be.

    Values of which both are needed at some node do not overlap. Each type of integer has its own
    array, as C does not define what a number of one type reads as another.
    """
    same: dict[str, str] = {}  # a flattened image is the image
    last: dict[str, int] = {}
    for number, node in enumerate(nodes):
        inputs = [same.get(name, name) for name in node.inputs]
        if node.op == "flatten":
            same[node.name] = inputs[0]
        last.update(dict.fromkeys(inputs, number))
    lives = {
        node.name: (number, last.get(node.name, number))
        for number, node in enumerate(nodes[:-1])
        if node.name not in same
    }
    places: dict[str, _Place] = {}
    for name in sorted(lives, key=lambda name: (-values[name].size, lives[name])):
        dtype, size = np.dtype(values[name].dtype), values[name].size
        taken = sorted(
            (other.start, other.start + other.size)
            for key, other in places.items()
            if other.dtype == dtype
            and lives[key][0] <= lives[name][1]
            and lives[name][0] <= lives[key][1]
        )
        start = 0
        for low, high in taken:
            if low - start >= size:
                break
            start = max(start, high)
        places[name] = _Place(dtype, start, size)
    return places | {name: places[source] for name, source in same.items() if source in places}


def _memory(places: dict[str, _Place]) -> dict[np.dtype, int]:
    """Numbers of each type that the places take together."""
    sizes: dict[np.dtype, int] = {}
    for place in places.values():
        sizes[place.dtype] = max(sizes.get(place.dtype, 0), place.start + place.size)
    return sizes


def _buffer(dtype: np.dtype) -> str:
    return f"memory_{dtype.name}"


class _Part(NamedTuple):
    function: str
    constants: list[str]
    bytes: int


def _step(number: int, node: Node, network: IntegerNetwork, values: dict[str, Any]) -> _Part:
    """A node's function and its constants."""
    own = {role: network.arrays[name] for role, name in node.arrays.items()}
    shapes = [_shape(values[name]) for name in (*node.inputs, node.name)]
    body, constants = step_body(node, own, shapes[:-1], shapes[-1])
    if not body:
        return _Part("", [], 0)
    names = {role: f"{role}_{number}" for role in constants}
    text = re.sub(r"\$(\w+)", lambda found: names[found[1]], body)
    inputs = [f"const {shape.type} *restrict x{i or ''}" for i, shape in enumerate(shapes[:-1])]
    said = re.sub("[^A-Za-z0-9_/]", "_", f"{node.name} {node.op}")
    indented = "\n".join(f"    {line}" if line else "" for line in text.strip("\n").split("\n"))
    arguments = ", ".join([*inputs, f"{shapes[-1].type} *restrict y"])
    function = f"/* {said} */\nstatic void step_{number}({arguments})\n{{\n{indented}\n}}"
    lines = [_declared(names[role], array) for role, array in constants.items()]
    return _Part(function, lines, sum(array.nbytes for array in constants.values()))


def _shape(value: Any) -> Extent:
    sizes = value.shape[1:]
    height, width = sizes[:2] if len(sizes) == 3 else (1, math.prod(sizes[:-1]))
    return Extent(C_TYPES[np.dtype(value.dtype).name], height, width, sizes[-1])


def _declared(name: str, array: np.ndarray) -> str:
    array = array.reshape(-1)
    return (
        f"static const {C_TYPES[array.dtype.name]} {name}[{array.size}] = {{\n"
        + "\n".join(_rows(array))
        + "\n};"
    )


def _rows(array: np.ndarray) -> Iterator[str]:
    suffix = "u" if array.dtype == np.uint32 else ""
    least = -(2**31)  # of which C has no literal
    words = ["(-2147483647 - 1)" if n == least else f"{n}{suffix}" for n in array.tolist()]
    for start in range(0, len(words), 20):
        yield ",".join(words[start : start + 20]) + ","


def _call(number: int, node: Node, places: dict[str, _Place]) -> str:
    if node.op == "flatten":
        return ""
    at = functools.partial(_pointer, places=places)
    target = at(node.name) if node.name in places else "logits"
    return f"    step_{number}({', '.join(map(at, node.inputs))}, {target});"


def _pointer(name: str, places: dict[str, _Place]) -> str:
    if name not in places:
        return "image"
    place = places[name]
    return f"{_buffer(place.dtype)} + {place.start}" if place.start else _buffer(place.dtype)
