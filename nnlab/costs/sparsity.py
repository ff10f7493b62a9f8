r"""Count what pruning leaves of a network: operations, bytes, and the weights' mass.

A term of a layer is a weight that meets an input. What a term of a zero weight still costs depends
on the arithmetic:

==============  ============================  ==================================
weights         a term                        a term of a zero weight
==============  ============================  ==================================
kernel          1 multiplication, 1 addition  nothing, if hardware skips it
adder_kernel    2 additions, -|x - w|         1 addition, -|x|: it is not absent
==============  ============================  ==================================

Pruning the fraction s of smallest magnitudes of weights with mean 0 removes

========  =====================================  =====================================
family    fraction of sum |w|                    fraction of sum w^2
========  =====================================  =====================================
gaussian  1 - exp(-t^2/2)                   (1)  s - 2 t phi(t)                   (2)
laplace   s + (1 - s) log(1 - s)            (3)  s - (1 - s) t (t + 2) / 2        (4)
========  =====================================  =====================================

where t is the magnitude below which the fraction s lies, in units of the scale: phi is the normal
density and 2 Phi(t) - 1 = s for the Gaussian, t = -log(1 - s) for the Laplacian. For the same s the
Laplacian loses less of both, as more of its weights are near 0. The effect on outputs is another
matter. An output of a convolution with uncorrelated inputs of mean square q changes by a mean
square of q times the sum of w^2 removed: (2) is the relative loss of power. An output of an adder
layer changes by up to the sum of |w| removed, (3), as ||x - w| - |x|| is at most |w|, with equality
where x is not between 0 and w. At s = 1/2 these are 0.071, or 27 % in amplitude, and 0.153. After a
ReLU, the change by a negative weight is the constant |w|, which a normalisation removes.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from nnlab.errors import InputError


class SparseLayer(NamedTuple):
    """One layer's weights and what they cost for the given images.

    Attributes:
        weights: number of weights.
        zeros: number of weights that are 0.
        terms: terms of the dense layer.
        multiplications, additions: operations if zero weights are skipped.
        dense_bytes: bytes of all weights at their dtype.
        bitmask_bytes: bytes of the nonzero weights plus one bit for each weight.
    """

    weights: int
    zeros: int
    terms: int
    multiplications: int
    additions: int
    dense_bytes: int
    bitmask_bytes: int


def sparse_counts(
    apply: Callable[..., Any], variables: Any, images: jax.Array
) -> dict[str, SparseLayer]:
    """Count every layer of a Flax model whose weights are a "kernel" or an "adder_kernel".

    Args:
        apply: `model.apply` in evaluation mode.
        variables: parameters and statistics, arrays; weights [..., in, out].
        images: array or `jax.ShapeDtypeStruct`; a batch of one gives counts for an image.

    Returns:
        {path of the layer, such as "Conv_1": its counts}.

    Raises:
        InputError: there is no such layer, or it is not called as `layer(x)`.
    """

    def outputs(variables, images):
        _, sown = apply(variables, images, capture_intermediates=True, mutable=["intermediates"])
        return sown["intermediates"]

    shapes = jax.eval_shape(outputs, variables, images)
    layers = {}
    for path, w in jax.tree_util.tree_leaves_with_path(variables["params"]):
        *modules, name = (key.key for key in path)
        if name in ("kernel", "adder_kernel"):
            layers["/".join(modules)] = _layer(name, np.asarray(w), _calls(shapes, modules))
    if not layers:
        raise InputError("the parameters hold no kernel and no adder_kernel; expected layers.")
    return layers


def _calls(shapes: Any, modules: list[str]) -> Any:
    for module in modules:
        shapes = shapes.get(module, {})
    if "__call__" not in shapes:
        raise InputError(f"the layer {'/'.join(modules)} is never called; expected an output.")
    return shapes["__call__"]


def _layer(name: str, w: np.ndarray, outputs: Any) -> SparseLayer:
    positions = sum(math.prod(y.shape[:-1]) for y in outputs)  # each meets every weight once
    kept = int(np.count_nonzero(w))
    terms, left = positions * w.size, positions * kept
    adder = name == "adder_kernel"
    return SparseLayer(
        weights=w.size,
        zeros=w.size - kept,
        terms=terms,
        multiplications=0 if adder else left,
        additions=terms + left if adder else left,
        dense_bytes=w.nbytes,
        bitmask_bytes=kept * w.itemsize + math.ceil(w.size / 8),
    )


class Mass(NamedTuple):
    """Fractions of the sums of |w| and of w^2 that belong to the smallest weights."""

    absolute: float
    squared: float


def mass_removed(weights: ArrayLike, sparsity: float) -> Mass:
    """Return what pruning the round(s size) smallest magnitudes of `weights` (any shape) removes.

    Raises:
        InputError: `sparsity` is not from 0 to 1, or the weights are none, all 0 or not finite.
    """
    _check_sparsity(sparsity)
    w = np.sort(np.abs(np.asarray(weights, np.float64)).ravel())
    if not (w.size and np.isfinite(w).all() and w[-1] > 0):
        raise InputError(
            f"{w.size} weights, {np.isfinite(w).sum()} of them finite and {np.count_nonzero(w)} "
            "not 0, were given; expected finite ones that are not all 0."
        )
    pruned = w[: round(sparsity * w.size)]
    return Mass(pruned.sum() / w.sum(), np.square(pruned).sum() / np.square(w).sum())


def expected_mass_removed(family: Literal["gaussian", "laplace"], sparsity: float) -> Mass:
    """Return the same for infinitely many weights of a family with mean 0, by (1) to (4).

    Raises:
        InputError: the family is unknown, or `sparsity` is not from 0 to 1.
    """
    _check_sparsity(sparsity)
    if family not in ("gaussian", "laplace"):
        raise InputError(f"family must be gaussian or laplace, not {family}.")
    if sparsity == 1:
        return Mass(1.0, 1.0)
    s = sparsity
    if family == "gaussian":
        t = NormalDist().inv_cdf((1 + s) / 2)
        return Mass(1 - math.exp(-(t**2) / 2), s - 2 * t * NormalDist().pdf(t))  # (1), (2)
    t = -math.log1p(-s)
    return Mass(s - (1 - s) * t, s - (1 - s) * t * (t + 2) / 2)  # (3), (4)


def _check_sparsity(sparsity: float) -> None:
    if not 0 <= sparsity <= 1:
        raise InputError(f"sparsity must be a number from 0 to 1, not {sparsity}.")
