r"""A network in integers as plain data, and the function that it is.

A network is a list of nodes, each with the names of the nodes whose values it takes ("images" is
what the network gets), attributes that JSON can hold, and arrays. The last node is the result. Of
texts "images" are the symbols, "lengths" says how many of each count, and "types" are their types.

=============  ===========================  ==========================================  =========
op             attributes                   value                                       arrays
=============  ===========================  ==========================================  =========
quantize       scale, low, high             clamp(round(scale x)), half to even; the    \-
                                            only node that takes floats
requantize     low, high                    clamp(offset + ((x - center) multiplier     center,
                                            + 2^(shift - 1) >> shift)) a channel   (1)  multiplier,
                                                                                        shift,
                                                                                        offset
add            low, high                    clamp(x + y)                                \-
conv           strides, padding             sum of products of int8 weights, of each    kernel
                                            group of channels to its own where there
                                            are `groups`
dense          \-                           the same of vectors                         kernel
adder_conv     strides, padding, shift,     -sum abs(x - (kernel << shift)) of bytes;   kernel
               padding_value, bits          the kernel's numbers fit in `bits` bits
adder_dense    shift, bits                  the same of vectors                         kernel
table          low                          values[x - low], one for each integer x      values
pack_signs     \-                           words of bits, 1 where x sign >= threshold  sign,
                                            a channel, as `nnlab.ops.packed`       (2)  threshold
binary_conv    strides, padding, channels   agreeing minus disagreeing signs            kernel
binary_dense   channels                     the same of vectors                         kernel
concatenate    \-                           those channels of all inputs that `order`   order
                                            says
pad            padding                      zeros around height, width and channels,    \-
                                            and as many `between` rows and columns
max_pool       window, strides, padding     largest of every window                     \-
or_pool        window, strides, padding     words: +1 where a window has a +1           \-
sum_pool       window, strides, padding     sum over every window                       \-
sum            positions                    over height and width, so many              \-
flatten        \-                           [batch, height width channels]              \-
embed          \-                           row x of values                             values
rows           \-                           the first rows of values, one a token       values
prepend        \-                           rows of values, then the tokens             values
take           first, last                  those of the tokens                         \-
tokens         \-                           a token for each pixel                      \-
layer_norm     features                     deviations on a sphere of radius 2^15  (3)  epsilon
scores         heads, size                  products of queries and keys of each head   \-
softmax        \-                           weights up to 255 for each query       (3)  \-
mix            heads, parts, tokens         parts (mean of values by weights)      (3)  \-
dequantize     step                         step x, float32: the only float result      \-
=============  ===========================  ==========================================  =========

Tokens are [batch, tokens, channels], scores [batch, heads, tokens, tokens], a head's channels side
by side; (3) is `nnlab.deployment.tokens`. `softmax` and `embed` also take "lengths" and "types".

Images are [batch, height, width, channels], kernels [kh, kw, in, out] or [in, out], where `in` are
the inputs of one of the `groups`, without which there is one; padding is two
pairs (of `pad` three), and a padded pixel is 0 but for `padding_value` and in `max_pool` and
`or_pool`, where it is below all others and no side is as wide as the window; a negative number of
them takes pixels away. Pools without `strides` move by their window, and without `padding` have
none. Integers are int32 in all arithmetic and rest in the smallest dtype that holds their bounds.
`nnlab.deployment.bounds` proves, node by node, that no sum and no product of (1) leaves int32; a
network of which that is not so is refused. So the value is exact: the same on every platform, in
every order of summation.
"""

import dataclasses
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation of the table above.

    Attributes:
        name: of the value; no other node has it.
        op: a name of the table.
        inputs: names of the values that it takes.
        attributes: numbers, strings and lists of them.
        arrays: from the name in the table to the name in the network's arrays.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any]
    arrays: dict[str, str]


@dataclasses.dataclass(frozen=True)
class IntegerNetwork:
    """Nodes, each after those whose values it takes, and the arrays that they name."""

    nodes: tuple[Node, ...]
    arrays: Arrays


def window_attributes(attributes: dict[str, Any]) -> tuple[list[int], list[int], list[list[int]]]:
    """The window, strides and padding of a pool."""
    window = attributes["window"]
    strides, padding = attributes.get("strides", window), attributes.get("padding")
    return window, strides, padding or [[0, 0], [0, 0]]
