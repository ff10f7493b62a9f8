"""What `nnlab.training.doctor` looks at: the numbers that go in and out of every layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

EXAMPLES = 16
SEEN = "seen by nnlab.training.doctor"


class Call(NamedTuple):
    """A layer's name, the numbers of what it got and gave, or None where there are no floats."""

    name: str
    inputs: dict[str, Any] | None
    outputs: dict[str, Any] | None


def watching(modules: dict[str, nn.Module], idle: set[str]) -> Callable[..., Any]:
    """Make an interceptor that keeps the numbers of every layer in the collection `SEEN`.

    Args:
        modules: gets the layers by their paths.
        idle: gets the paths of all `idle_parameters`.
    """

    def watch(method: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext):
        y = method(*args, **kwargs)
        module = context.module
        named = getattr(module, "idle_parameters", ())
        idle.update("/".join((*module.path, name)) for name in named)
        if context.method_name == "__call__" and _own(module):
            modules.setdefault("/".join(module.path) or type(module).__name__, module)
            given = [a for a in jax.tree.leaves((args, kwargs)) if isinstance(a, jax.Array)]
            module.sow(SEEN, "numbers", (some(given[0] if given else None), some(y)))
        return y

    return watch


def _own(module: nn.Module) -> list[str]:
    params = module.variables.get("params", {})
    return [name for name, leaf in params.items() if not hasattr(leaf, "items")]


def seen_at(tree: Any, path: tuple[str, ...]) -> tuple[Any, ...]:
    for key in path:
        tree = tree.get(key, {})
    return tree.get("numbers", ())


def some(x: Any) -> jax.Array | None:
    """Pick 16 places along each axis but the last of floats [examples, ..., features]."""
    if not (isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating) and x.ndim > 1):
        return None
    if x.size == 0 or len(x) < 2:
        return None
    return x[(slice(EXAMPLES), *(slice(None, None, -(-size // 16)) for size in x.shape[1:-1]))]


def numbers(x: Any) -> dict[str, Any] | None:
    """Measure what the faults are told by; `x` is what `some` gives."""
    if x is None:
        return None
    x = np.asarray(x, np.float64)
    middle = x[(slice(None), *(size // 2 for size in x.shape[1:-1]))]  # [examples, features]
    lengths = np.sqrt(np.square(middle).sum(axis=-1, keepdims=True))
    directions = middle / np.where(lengths > 0, lengths, 1)
    alike = np.where(lengths[:, 0] > 0, directions @ directions[lengths.argmax()], 1)
    return {
        "low": x.min(),
        "high": x.max(),
        "mean": np.median(x.mean(axis=0)),  # one place may be masked by a huge number
        "deviation": x.std(axis=0).mean(),
        "varies": (np.ptp(x, axis=0) > 1e-6 * abs(x).max(axis=0)).any(),
        "alike": alike.min() if x.shape[-1] > 1 else 0.0,
        "finite": np.isfinite(x).all(),
        "features": x.shape[-1],
        "sums": abs(x.sum(axis=-1) - 1).max(),
    }


def difference(w: Any) -> float:
    """Return by how much of their size filters [..., out] differ; 1 for other arrays."""
    w = np.asarray(w, np.float32)
    if w.ndim < 2 or w.shape[-1] < 2 or w.size == w.shape[-1]:
        return 1.0
    return float(np.ptp(w, axis=-1).max(initial=0) / max(abs(w).max(initial=0), 1e-30))
