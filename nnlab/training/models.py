"""What a model and its optimiser must be, so that a training can call them."""

import dataclasses
import inspect
from typing import Any

import flax.linen as nn

from nnlab.arithmetics import Arithmetic
from nnlab.errors import InputError
from nnlab.networks import check_arithmetic


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
