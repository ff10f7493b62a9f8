"""Networks as ONNX files, for runtimes of others.

A function in floats goes through jax2onnx, which knows the operations of JAX. An integer network is
written node by node: the file computes in its integers, to the bit, with `ConvInteger` and
`MatMulInteger` for products of bytes; packed signs become bytes -1 and +1. ONNX has no sums of
distances, so adder layers have no file (`nnlab.deployment.write_c` writes them).

Inputs are "images" [batch, height, width, channels], outputs "logits" [batch, classes], both
float32, for any batch size.

Reference:
    https://onnx.ai/onnx/operators/; https://github.com/enpasos/jax2onnx.
"""

import importlib
import inspect
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nnlab import kernels
from nnlab.deployment.graph import IntegerNetwork
from nnlab.deployment.network import run_nodes
from nnlab.deployment.onnx_nodes import OnnxGraph, operation_of
from nnlab.errors import InputError, needs
from nnlab.files.container import replacing


def save_onnx(
    path: str | os.PathLike[str],
    network: IntegerNetwork | Callable[..., Any],
    image_shape: Sequence[int],
    *,
    overwrite: bool = False,
) -> None:
    """Write `network` as an ONNX file.

    Args:
        path: the file; missing parent folders are made.
        network: an integer network of products and signs, or a function of float32 images [batch,
            *image_shape] to logits, such as `functools.partial(model.apply, variables)`.
        image_shape: [height, width, channels] or [features], in sizes that are fixed.
        overwrite: replace a file that is there.

    Raises:
        InputError: the file exists or cannot be written, the network takes no such images, or has
            an operation that ONNX or the exporter does not have.
        MissingPackageError: onnx or jax2onnx is not installed.
    """
    shape = tuple(image_shape)
    if isinstance(network, IntegerNetwork):
        data = _integers(network, shape)
    else:
        data = _floats(network, shape)
    with replacing(path, overwrite) as partial:
        partial.write_bytes(data)


def _integers(network: IntegerNetwork, image_shape: tuple[int, ...]) -> bytes:
    if not network.nodes or network.nodes[-1].op != "dequantize":
        raise InputError("the network does not end in logits (dequantize), expected a whole one.")
    for node in network.nodes:
        operation_of(node)  # before shapes, which texts have others of
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    try:
        values = jax.eval_shape(run_nodes(network), images)
    except InputError:
        raise
    except Exception as error:  # whatever JAX says of shapes that do not fit
        said = str(error).strip().split("\n")[0].rstrip(".")
        raise InputError(f"the network takes no images {image_shape}: {said}.") from error
    graph = OnnxGraph()
    graph.images(image_shape)
    for node in network.nodes:
        graph.add(node, network.arrays, values[node.name])
    last = network.nodes[-1].name
    return graph.model(last, values[last].shape[1:])


_POOLS = {name: inspect.signature(getattr(nn, name)) for name in ("avg_pool", "max_pool")}


def _with_pools(network: Callable[..., Any]) -> Callable[..., Any]:
    """Let the network call Flax's pools by position, which jax2onnx's stand-ins do not take."""

    def by_name(pool: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            given = signature.bind(*args, **options).arguments
            return pool(given.pop("inputs"), **given)

        return call

    def called(images: Any) -> Any:
        stand_ins = {name: getattr(nn, name) for name in _POOLS}
        try:
            for name, pool in stand_ins.items():
                setattr(nn, name, by_name(pool, _POOLS[name]))
            return network(images)
        finally:
            for name, pool in stand_ins.items():
                setattr(nn, name, pool)

    return called


def _floats(network: Callable[..., Any], image_shape: tuple[int, ...]) -> bytes:
    with needs("onnx"):
        jax2onnx: Any = importlib.import_module("jax2onnx")
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # warns of its own shapes' types
    try:
        with kernels.use("xla"):
            model = jax2onnx.to_onnx(
                _with_pools(network),
                [("batch", *image_shape)],
                input_names=["images"],
                output_names=["logits"],
            )
    except Exception as error:  # whatever the exporter says of an operation that it lacks
        said = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(
            f"jax2onnx cannot write the network: {said}; expected products, BatchNorm and "
            "activations, as in networks without adders."
        ) from error
    return model.SerializeToString()
