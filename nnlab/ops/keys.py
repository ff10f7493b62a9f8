"""Check random keys: JAX refuses an integer in place of one in words of its own inside."""

from typing import Any

import jax
import jax.numpy as jnp

from nnlab.errors import InputError


def check_key(key: Any, name: str = "key") -> None:
    """Raise `InputError`, which says what to give instead, unless `key` is one random key.

    Args:
        key: a typed key [] or one of uint32 numbers [n], as `jax.random.PRNGKey` makes it; it may
            be traced.
        name: of the argument.
    """
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        given = None if shape == () else f"keys of shape {list(shape or ())}"
    elif dtype == jnp.uint32 and shape is not None and len(shape) == 1 and shape[0] in (2, 4):
        given = None
    else:
        given = f"{key!r:.80}" if shape is None else f"an array {dtype} {list(shape)}"
    if given is not None:
        seed = key if isinstance(key, int) and not isinstance(key, bool) else 0
        raise InputError(f"{name} is {given}, expected a random key, jax.random.key({seed}).")
