"""Which unit of a network is connected to which: forward, back, to all, to neighbours, to a few.

A unit is connected to another if what it says can change what the other says. How layers follow
each other is one question: in a feed-forward network every way leads on, in one with feedback units
also see what they or later ones said a step before. Within a layer of m inputs and n outputs the
other question is how many of its m n connections are there:

=====================  ===================  ====================
layer                  connections          weights
=====================  ===================  ====================
fully connected        m n                  m n
locally connected      n k                  n k
convolution            n k                  k
sparse, 2 of 4         m n / 2              m n, half of them 0
=====================  ===================  ====================

for windows of k inputs. A convolution has the connections of a locally connected layer, and the
same weights at every place. A weight of zero is no connection where it multiplies; an adder's term
-|x - 0| is one like any other, so that an adder layer with weights at zero is as connected as
before.

Nothing here knows a kind of layer. Layers and their order come from the traced program
(`nnlab.costs.connections`), and the connections within a layer from trying it: one input after the
other is changed, and what changes at the output is connected to it.

References:
    LeCun, Generalization and network design strategies, 1989, for local connections and shared
    weights. Elman, Finding structure in time, 1990, for the network with feedback.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnlab.arithmetics import FLOAT, Arithmetic, of_product
from nnlab.costs.connections import connections
from nnlab.errors import InputError
from nnlab.layers.recurrent import SimpleCell
from nnlab.ops.products import Product
from nnlab.ops.sparse import n_m_sparse

_TRIES = 16  # of each input, from as many starts


class Link(NamedTuple):
    """The connections of one layer.

    Attributes:
        layer: its path, joined by "/".
        source, target: numbers of the groups of units that it connects.
        feedback: whether its inputs are what the source said a step before.
        connected: bool [inputs, outputs].
        weights: how many numbers the layer has.
    """

    layer: str
    source: int
    target: int
    feedback: bool
    connected: np.ndarray
    weights: int


class Units(NamedTuple):
    """A network unit by unit.

    Attributes:
        groups: how many units each group has; the network's inputs are the first.
        links: what connects them, in the order of the program.
    """

    groups: tuple[int, ...]
    links: tuple[Link, ...]


def units(key: jax.Array, model: nn.Module, variables: Any, inputs: Any) -> Units:
    """Find the units of a small network and their connections.

    Layers that meet in a sum, such as those of a recurrent cell, have their units in common. What
    runs between layers is taken to be unit by unit, as activations are.

    Args:
        key: for the numbers that layers are tried with.
        model: of layers with one input each; called as `model.apply(variables, inputs)`.
        variables: its parameters, arrays.
        inputs: a batch of one, an array or a `jax.ShapeDtypeStruct`.

    Raises:
        InputError: a layer has several inputs, or other units than those that it is connected to.
    """
    graph = connections(model, variables, inputs)
    nodes, edges = graph.nodes, graph.edges
    own = list(range(len(nodes)))
    for edge in edges:
        if nodes[edge.target].name == "+" and nodes[edge.source].kind == "layer":
            own[edge.source] = edge.target
    found: list[Link] = []
    for edge in edges:
        call = nodes[edge.target].call
        if call is not None:
            name, key = nodes[edge.target].name, jax.random.fold_in(key, call)
            connected = _of_call(key, graph.calls[call], variables)
            weights = sum(leaf.size for leaf in jax.tree.leaves(graph.calls[call].variables))
            ends = own[edge.source], own[edge.target]
            found.append(Link(name, *ends, edge.feedback, connected, weights))
    sizes: dict[int, int] = {}
    for link in found:
        for group, size in zip((link.source, link.target), link.connected.shape, strict=True):
            if sizes.setdefault(group, size) != size:
                raise InputError(
                    f"{link.layer} connects {size} units where {sizes[group]} were found; expected"
                    " layers whose inputs are the units of others."
                )
    number = {group: new for new, group in enumerate(sorted(sizes))}
    links = (
        link._replace(source=number[link.source], target=number[link.target]) for link in found
    )
    return Units(tuple(sizes[group] for group in number), tuple(links))


def _of_call(key: jax.Array, call: Any, variables: Any) -> np.ndarray:
    own = {name: _at(tree, call.path) for name, tree in variables.items()}
    leaves, structure = jax.tree.flatten(call.arguments)
    arrays = [n for n, leaf in enumerate(leaves) if isinstance(leaf, jax.ShapeDtypeStruct)]
    if len(arrays) != 1:
        raise InputError(
            f"{'/'.join(call.path) or 'the layer'} has {len(arrays)} inputs; expected one."
        )
    (place,) = arrays

    def apply(x: jax.Array) -> jax.Array:
        args, kwargs = structure.unflatten([*leaves[:place], x, *leaves[place + 1 :]])
        return call.module.apply(own, *args, **kwargs)

    return connected(key, apply, leaves[place].shape)


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree.get(name, {})
    return tree


def connected(
    key: jax.Array, function: Callable[[jax.Array], jax.Array], shape: tuple[int, ...]
) -> np.ndarray:
    """Find which outputs of a function change with which of its inputs.

    Args:
        key: for normal inputs, 16 sets of them, and for the numbers that each is changed to.
        function: from an array to an array.
        shape: of its input.

    Returns:
        bool [inputs, outputs], both flattened.
    """
    first, second = jax.random.split(key)
    size = int(np.prod(shape))
    starts = jax.random.normal(first, (_TRIES, size))
    others = jax.random.normal(second, (_TRIES, size)) - 2 * jnp.sign(starts)  # of other signs too
    changed = jnp.where(jnp.eye(size, dtype=bool), others[:, None], starts[:, None])
    tried = jnp.concatenate([starts[:, None], changed], 1).reshape(-1, *shape)
    outputs = np.asarray(jax.lax.map(function, tried), np.float64)
    outputs = outputs.reshape(_TRIES, 1 + size, -1)
    before, after = outputs[:, :1], outputs[:, 1:]
    return np.any(np.abs(after - before) > 1e-5 * (1 + np.abs(before)), axis=0)


class Local(nn.Module):
    """A locally connected layer in any arithmetic: [batch, inputs] to [batch, inputs - window + 1].

    Each output has weights of its own, as in `flax.linen.ConvLocal`.
    """

    window: int
    arithmetic: Arithmetic = FLOAT

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        places = x.shape[-1] - self.window + 1
        windows = jnp.stack([x[..., p : p + self.window] for p in range(places)])
        layer: Any = nn.vmap(
            lambda module, x: self.arithmetic.dense(1, use_bias=False)(x),
            variable_axes={"params": 0},
            split_rngs={"params": True},
        )
        return jnp.moveaxis(layer(self, windows)[..., 0], 0, -1)


class Convolution(nn.Module):
    """The same with the same weights at every place."""

    window: int
    arithmetic: Arithmetic = FLOAT

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layer = self.arithmetic.conv(1, (self.window,), padding="VALID", use_bias=False)
        return layer(x[..., None])[..., 0]


class Feedback(nn.Module):
    """Elman's network: a layer that also sees what it said a step before, and one after it."""

    arithmetic: Arithmetic = FLOAT

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        states: Any = nn.RNN(SimpleCell(4, dense=self.arithmetic.dense), name="rnn")(x)
        return self.arithmetic.dense(2, use_bias=False)(states[:, -1])


def networks(arithmetic: Arithmetic, product: Product) -> dict[str, tuple[nn.Module, Any]]:
    """Return small networks of every topology, and the shape of an input.

    Args:
        arithmetic: of their layers.
        product: its product, for the layer that uses two of every four weights.
    """
    dense, sparse = arithmetic.dense, of_product(n_m_sparse(product)).dense
    deep = [dense(5, use_bias=False), arithmetic.activation, dense(3, use_bias=False)]
    models = {
        "feed-forward": (nn.Sequential(deep), (4,)),
        "feedback": (Feedback(arithmetic), (6, 3)),
        "fully connected": (dense(6, use_bias=False), (8,)),
        "locally connected": (Local(3, arithmetic), (8,)),
        "convolution": (Convolution(3, arithmetic), (8,)),
        "sparsely connected": (sparse(6, use_bias=False), (8,)),
    }
    shaped = jax.ShapeDtypeStruct
    return {name: (model, shaped((1, *s), jnp.float32)) for name, (model, s) in models.items()}
