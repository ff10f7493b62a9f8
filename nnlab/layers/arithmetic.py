"""What an arithmetic is, and how to make one; `nnlab.arithmetics` has those that there are."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax

from nnlab.layers.product import ProductConv, ProductDense
from nnlab.ops.products import Product
from nnlab.ops.terms import Function, Term, term_conv


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """Layers of one kind, and what surrounds them.

    Attributes:
        conv: called as `conv(features, kernel_size, strides=…, padding=…, use_bias=…, dtype=…)`.
        dense: called as `dense(features, use_bias=…, dtype=…)`.
        activation: what stands between a normalisation and the next layer.
        name: one word for command lines, tables, errors and files.
        about: what a term computes, and the source, in one line.
        needs_norm: whether outputs are far from zero mean and unit variance, so that a network must
            normalise them. A recurrent cell then needs `norm=True`.
        shortcuts: what a shortcut of a residual network goes around as published: a "block" of
            convolutions, or every "convolution".
        attention: the attention of a transformer, called as
            `attention(query, key, value, mask=…, is_causal=…, local_window_size=…, scale=…)`, see
            `nnlab.ops.attention`; a class of modules if it has parameters, which is made without
            arguments. None is `jax.nn.dot_product_attention`.
        dense_after_relu: the same as `dense`, of inputs that are not negative, such as the second
            layer of a transformer's feed-forward block has after a ReLU. None is `dense`.
    """

    conv: Callable[..., nn.Module]
    dense: Callable[..., nn.Module]
    activation: Callable[[jax.Array], jax.Array]
    name: str = "custom"
    about: str = ""
    needs_norm: bool = True
    shortcuts: Literal["block", "convolution"] = "block"
    attention: Callable[..., Any] | None = None
    dense_after_relu: Callable[..., nn.Module] | None = None

    def __post_init__(self):
        if self.about:  # what `help` and an editor show
            object.__setattr__(self, "__doc__", f"{self.name}: {self.about}.")

    def __repr__(self) -> str:
        return f"<Arithmetic {self.name}{': ' * bool(self.about)}{self.about}>"


def of_product(
    op: Product,
    *,
    activation: Callable[[jax.Array], jax.Array] = nn.relu,
    name: str = "custom",
    about: str = "",
    needs_norm: bool = True,
    shortcuts: Literal["block", "convolution"] = "block",
    attention: Callable[..., Any] | None = None,
    **options,
) -> Arithmetic:
    """Make the arithmetic whose convolution and dense layers compute `op`.

    Args:
        op: `op(x, kernel, strides=…, padding=…, kernel_dilation=…)`, as in `nnlab.ops.products`. It
            may know images only; dense layers then give it images of one pixel.
        activation, name, about, needs_norm, shortcuts, attention: see `Arithmetic`.
        **options: options of both `nnlab.layers.ProductConv` and `ProductDense`: kernel_name,
            kernel_init, stochastic.
    """
    conv = functools.partial(ProductConv, op=op, **options)
    dense = functools.partial(ProductDense, op=op, **options)
    return Arithmetic(conv, dense, activation, name, about, needs_norm, shortcuts, attention)


def of_term(
    value: Function | Term,
    filter_rule: Function | None = None,
    input_rule: Function | None = None,
    *,
    activation: Callable[[jax.Array], jax.Array] = nn.relu,
    name: str | None = None,
    about: str | None = None,
    needs_norm: bool = True,
    shortcuts: Literal["block", "convolution"] = "block",
    **options,
) -> Arithmetic:
    """Make the arithmetic whose layers sum `value(x, w)` over the inputs of a window.

    The sums are fast in dense layers and along one to three axes: no array of
    [positions, in, out] exists, and on a CPU a term of simple steps becomes a native loop
    (`nnlab.kernels.term_status` says whether). Operations are counted step by step.

    Args:
        value: elementwise function of inputs and weights, arrays that broadcast, written with
            `jax.numpy`; or a `nnlab.ops.terms.Term`, which holds all three functions.
        filter_rule: the same; a weight's cotangent is the sum of it times the output's. By default
            the derivative of `value` by w.
        input_rule: the same for inputs.
        activation, needs_norm, shortcuts: see `Arithmetic`.
        name: by default that of `value`, unless it is a lambda.
        about: by default the first line of its docstring.
        **options: kernel_name and kernel_init of `nnlab.layers.ProductConv`. The name decides how
            weights learn; "adder_kernel" with `nn.initializers.normal(1.0)` suits distances.

    Raises:
        InputError: a function is not elementwise or not of two arrays.
    """
    term = value if isinstance(value, Term) else Term(value, filter_rule, input_rule)
    called = getattr(term.value, "__name__", "custom")
    lines = (getattr(term.value, "__doc__", None) or "").strip().splitlines()
    return of_product(
        functools.partial(term_conv, term=term),
        activation=activation,
        name=name or ("custom" if called == "<lambda>" else called),
        about=about if about is not None else "".join(lines[:1]).rstrip("."),
        needs_norm=needs_norm,
        shortcuts=shortcuts,
        **options,
    )
