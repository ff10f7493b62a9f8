r"""Adder filters in few bits, by redistribution and by one shared scale.

The adder needs inputs and weights on one scale: s abs(x - w) = abs(s x - s w). Trained weights
reach much further than inputs do (tens against a few), so one scale for both wastes most codes of
the inputs. Redistribution brings the weights to the inputs. For inputs within [0, r]

.. math:: |x - w| = |x - \mathrm{clip}(w, 0, r)| + \max(w - r, 0) + \max(-w, 0)         (1)

is exact: what lies outside is a constant of the filter, a bias. (The paper clips to [-r, r]; with
inputs that are never negative 0 serves as well as -r, and both operands are unsigned.) Then

1. the filters of a layer are clustered by max abs(w) into groups, each with its own scale:
   s = r where the group's max abs(w) is larger than r, else s = max abs(w); but s = r as well
   where that is below r / 3, unlike in the paper: there nearly all inputs would saturate, and the
   sums would lose what they say of the input (`tests/deployment/test_quantization.py`);
2. inputs in n bits are round(x (2^n - 1) / s) within [0, 2^n - 1], so that inputs above s, of
   which there are none where s = r, saturate;
3. weights in n bits, one of them the sign's, are round(w (2^n - 1) / (2 s)) up to 2^(n-1) - 1:
   steps twice those of the inputs, so their codes enter the distance shifted by 1. The clip (1) is
   at the largest of these, one input's step below s: so what it cuts off is in the bias as well.

Groups with one scale are one group. The baseline has the step s / (2^(n-1) - 1) for both operands,
s = max(r, max abs(w)), signed codes and no clamp; as codes below 0 also only add a constant (1), it
is computed on the same unsigned bytes. Inputs from l < 0 are measured from l, as x - l and w - l.

References:
    Nie et al., Redistribution of Weights and Activations for AdderNet Quantization, NeurIPS 2022,
    https://arxiv.org/abs/2212.10200, and its code. Wang et al., AdderNet and its Minimalist
    Hardware Design, 2021, https://arxiv.org/abs/2101.10015, for the shared scale.
"""

import warnings
from typing import Literal, NamedTuple

import numpy as np

from nnlab.errors import InputError, needs

Scheme = Literal["redistribution", "shared"]


class Group(NamedTuple):
    """Filters of one scale. Their sums of integers n are the real numbers step n + bias.

    Attributes:
        filters: which of the layer's.
        step, low, top: the inputs' codes are round((x - low) / step) within [0, top].
        codes: of the weights, uint8 [..., filters]; they enter the distance as codes << shift.
        shift: 0 or 1.
        bias: real numbers [filters].
    """

    filters: np.ndarray
    step: float
    low: float
    top: int
    codes: np.ndarray
    shift: int
    bias: np.ndarray


def quantized_filters(
    kernel: np.ndarray, low: float, high: float, bits: int, groups: int, scheme: Scheme
) -> list[Group]:
    """Codes of an adder layer's weights and inputs.

    Args:
        kernel: trained weights [..., in, out].
        low, high: range of the layer's inputs; `low` at most 0.
        bits: of inputs and weights, from 2 to 8.
        groups: clusters of filters at most.
        scheme: of this module's text.

    Raises:
        InputError: bits, groups, scheme or range are not as above, or a weight is not finite.
    """
    check_options(bits, groups, scheme)
    if not (low <= 0 and low < high and np.isfinite(high - low) and np.isfinite(kernel).all()):
        raise InputError(
            f"an adder layer has inputs from {low:.4g} to {high:.4g} and weights up to "
            f"{abs(kernel).max():.4g}, expected a range around 0 and finite weights."
        )
    if scheme == "shared":
        return [_shared(kernel, low, high, bits)]
    reach = high - low
    shifted = kernel - low
    magnitudes = abs(shifted).max(axis=tuple(range(kernel.ndim - 1)))
    scales = np.zeros_like(magnitudes)
    for cluster in _clusters(magnitudes, groups):
        extent = magnitudes[cluster].max()
        scales[cluster] = extent if reach / 3 <= extent < reach else reach
    largest = 2**bits - 1
    found = []
    for scale in np.unique(scales):
        filters = np.flatnonzero(scales == scale)
        w = shifted[..., filters]
        step = float(scale / largest)
        reached = 2 * step * (2 ** (bits - 1) - 1)
        codes = np.rint(np.clip(w, 0, reached) / (2 * step)).astype(np.uint8)
        found.append(Group(filters, step, low, largest, codes, 1, -_outside(w, 0, reached)))
    return found


def check_options(bits: int, groups: int, scheme: str) -> None:
    """Raise unless bits, groups and scheme are as in this module's text."""
    whole = isinstance(bits, int | np.integer) and isinstance(groups, int | np.integer)
    if not whole or not 2 <= bits <= 8 or groups < 1 or scheme not in ("redistribution", "shared"):
        raise InputError(
            f"an adder network takes 2 to 8 bits, 1 group or more and the scheme redistribution or "
            f"shared, not {bits}, {groups} and {scheme!r}."
        )


def _shared(kernel: np.ndarray, low: float, high: float, bits: int) -> Group:
    most = 2 ** (bits - 1) - 1
    step = float(max(high, -low, abs(kernel).max())) / most
    zero = most if low < 0 else 0
    codes = np.clip(np.rint(kernel / step), -most, most) + zero
    bias = -_outside(codes, 0, zero + most) * step
    filters = np.arange(kernel.shape[-1])
    low = -zero * step
    unsigned = np.maximum(codes, 0).astype(np.uint8)
    return Group(filters, step, low, zero + most, unsigned, 0, bias)


def _outside(w: np.ndarray, low: float, high: float) -> np.ndarray:
    """What (1) leaves out of the distance: a number a filter."""
    return (np.maximum(w - high, 0) + np.maximum(low - w, 0)).sum(axis=tuple(range(w.ndim - 1)))


def _clusters(magnitudes: np.ndarray, groups: int) -> list[np.ndarray]:
    with needs("deployment"):
        from sklearn.cluster import KMeans

    groups = min(groups, len(np.unique(magnitudes)))
    with warnings.catch_warnings(action="ignore"):  # of fewer clusters, beside a huge weight
        labels = KMeans(groups, random_state=0).fit_predict(magnitudes[:, None])
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]
