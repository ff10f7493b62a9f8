"""Checks of hyperparameters: numbers that are known, not schedules or what JAX traces."""

from typing import Any

from jax.core import Tracer

from nnlab.errors import InputError


def check_number(name: str, value: Any, below: float = float("inf")) -> None:
    """Raise `InputError` unless a number is from 0 to less than `below`."""
    if callable(value) or isinstance(value, Tracer):
        return
    try:
        holds = 0 <= value < below
    except (TypeError, ValueError):  # no number, or several
        holds = False
    if not holds:
        wanted = "from 0 on" if below == float("inf") else f"from 0 to below {below:g}"
        raise InputError(f"{name} must be a finite number {wanted}, not {value!r}.")
