"""What a model, its optimiser and its examples must be, so that a training can call them."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.core import Tracer

from nnlab.arithmetics import Arithmetic
from nnlab.data.batches import check_channels_last
from nnlab.errors import InputError
from nnlab.layers.product import ProductConv, ProductDense
from nnlab.networks import Network, check_arithmetic

# Layers that compute with the numbers of their inputs, as `nn.Embed` does not.
_PRODUCTS = (nn.Conv, nn.ConvLocal, nn.ConvTranspose, nn.Dense, nn.DenseGeneral)
_PRODUCTS += (ProductConv, ProductDense)


def check_model(model: Any) -> None:
    """Raise `InputError`, which says what to give instead, unless `model` can be trained."""
    kind = type(model).__name__
    if isinstance(model, type):
        raise InputError(f"model is the class {model.__name__}, expected one of it.")
    if not isinstance(model, nn.Module):
        is_nnx = any(base.__module__.startswith("flax.nnx") for base in type(model).__mro__)
        what = f"{kind}, a module of flax.nnx" if is_nnx else kind
        raise InputError(f"model is a {what}; expected a flax.linen.Module.")
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if isinstance(field.default, Arithmetic):
            check_arithmetic(f"{field.name} of {kind}", value)
    taken = inspect.signature(type(model).__call__).parameters
    if "train" not in taken and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        raise InputError(
            f"{kind} is called with train=True and train=False; its __call__ lacks the argument "
            "`train: bool = False`."
        )


def check_optimizer(optimizer: Any) -> None:
    """Raise `InputError`, which says what to give instead, unless it is a transformation."""
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        name = getattr(optimizer, "__name__", None)
        given = f"the function {name}, not yet called" if name else f"{optimizer!r:.80}"
        raise InputError(
            f"optimizer is {given}; expected an optax transformation, such as optax.sgd(0.1)."
        )


def check_axes(model: nn.Module, inputs: Any) -> None:
    """Raise `InputError` if images for a network of nnlab's have their channels in front.

    Args:
        model: any; one of your own may have them where it wants.
        inputs: an array or any tree of them; only shapes matter.
    """
    shape = getattr(inputs, "shape", ())
    if isinstance(model, Network) and len(shape) == 4:
        check_channels_last(shape)


def apply(model: nn.Module, variables: Any, inputs: Any, **options: Any) -> Any:
    """Return what `model.apply(variables, inputs, …)` does, of inputs that have been looked at.

    Raises:
        InputError: images have their channels in front (`check_axes`), or a layer with a kernel is
            given bytes, 0 to 255 as they are in files.
    """
    check_axes(model, inputs)
    if not any(getattr(leaf, "dtype", None) == np.uint8 for leaf in jax.tree.leaves(inputs)):
        return model.apply(variables, inputs, **options)
    with nn.intercept_methods(_refuse_bytes):
        return model.apply(variables, inputs, **options)


def _refuse_bytes(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    layer = context.module
    if isinstance(layer, _PRODUCTS) and getattr((*args, None)[0], "dtype", None) == np.uint8:
        raise InputError(
            f"{'/'.join(layer.path)} was given uint8, 0 to 255 as in files; expected floats around "
            "0, such as nnlab.vision.standardized(dataset) or nnlab.vision.to_float(images)."
        )
    return call(*args, **kwargs)


def label_check(model: nn.Module) -> Callable[[Any, Any, Any], None]:
    """Return `check(variables, inputs, labels)`: are labels classes that the model tells apart?

    It raises `InputError` if not. It looks at those that the cross-entropy takes as classes,
    integers, in memory, and not again at an array that it has seen in the call before. Of variables
    and inputs only shapes and dtypes matter.

    Args:
        model: called as `model(inputs, train=False)`, unless its attribute `classes` says it all.
    """
    seen: Any = None

    def check(variables: Any, inputs: Any, labels: Any) -> None:
        nonlocal seen
        if labels is seen or not hasattr(labels, "dtype") or isinstance(labels, Tracer):
            return
        if not getattr(labels, "is_fully_addressable", True):
            return
        values = np.asarray(labels)
        if values.dtype.kind not in "iu" or not values.size:
            return
        classes = getattr(model, "classes", None)
        if not isinstance(classes, int):
            few = jax.tree.map(lambda a: a[:1], inputs)
            apply = functools.partial(model.apply, train=False)
            try:
                outputs = jax.eval_shape(apply, variables, few)
            except Exception:  # inputs that do not fit; the program that follows says why
                return
            classes = getattr(outputs, "shape", (0,))[-1]
        least, most = int(values.min()), int(values.max())
        if classes and (least < 0 or most >= classes):
            raise InputError(
                f"labels go from {least} to {most}, expected 0 to {classes - 1} for the {classes} "
                f"outputs of {type(model).__name__}"
                + (f"; give labels - {least}." if 0 < least == most - classes + 1 else ".")
            )
        seen = labels

    return check
