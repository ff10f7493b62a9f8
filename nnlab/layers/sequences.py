"""Layers of sequences [batch, time, features] around recurrent cells.

**Padding.** `lengths` [batch], int32, are the steps of each sequence that count; after them the
output is zero and the state stays what it was.

**State from call to call.** Without more every call starts at zeros. If the Flax collection "carry"
is mutable, the state at the end is put there, and if the variables hold one, that is the start:

    y, after = model.apply(variables, x, mutable=["carry"])
    y, after = model.apply(variables | after, next_x, mutable=["carry"])

That is how a network runs on, one step or one piece at a time, and, as no gradient flows through
variables that are given, how back-propagation through time is truncated
(`nnlab.training.init(streams=…)`).

**Dropout.** One draw serves all steps of a sequence, of inputs (`Stacked`) as of states
(`Recurrent`), from the stream "dropout": Gal & Ghahramani, A theoretically grounded application of
dropout in recurrent neural networks, NeurIPS 2016, https://arxiv.org/abs/1512.05287, section 4.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from nnlab.errors import InputError
from nnlab.layers.recurrent import Cell


class Recurrent(nn.Module):
    """A cell along time, [batch, time, m] to [batch, time, n].

    Attributes:
        cell: of `nnlab.layers` or of Flax.
        reverse: from the last step to the first; such a layer carries no state from call to call.
        dropout: rate of the states' dropout, for a cell of `nnlab.layers`.

    Raises:
        InputError: on the call, for inputs that are not [batch, time, m], lengths that are not
            integers [batch] or, where they are known, not from 0 to time, a state carried from
            a batch of another size, or dropout of a cell of Flax's.
    """

    cell: nn.RNNCellBase
    reverse: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: jax.Array, lengths: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        check_sequence(x, lengths)
        kept = None
        if self.dropout and train:
            if not isinstance(self.cell, Cell):
                name = type(self.cell).__name__
                raise InputError(f"dropout of states needs a cell of nnlab.layers, not {name}.")
            ones = jnp.ones((len(x), self.cell.features), jnp.float32)
            kept = nn.Dropout(self.dropout, deterministic=False, name="dropout")(ones)

        def step(cell: Any, carry: Any, of_step: Any) -> tuple[Any, jax.Array]:
            x, counts = of_step
            after, y = cell(carry, x) if kept is None else cell(carry, x, kept)
            if counts is not None:
                after = jax.tree.map(lambda a, b: jnp.where(counts[:, None], a, b), after, carry)
                y = jnp.where(counts[:, None], y, 0)
            return after, y

        scan = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": False},
            in_axes=1,
            out_axes=1,
            reverse=self.reverse,
        )
        counts = None
        if lengths is not None:
            counts = jnp.arange(x.shape[1]) < lengths[:, None]
            x = jnp.where(counts[..., None], x, 0)  # so that no NaN of the padding meets a gradient
        end, y = scan(self.cell, self._start(x), (x, counts))
        if self._carries():
            self.put_variable("carry", "state", end)
        return y

    def _carries(self) -> bool:
        return (
            self.is_mutable_collection("carry") and not self.reverse and not self.is_initializing()
        )

    def _start(self, x: jax.Array) -> Any:
        zeros = self.cell.initialize_carry(jax.random.key(0), (len(x), x.shape[-1]))
        if getattr(self.cell, "dtype", None) is None:  # the computation's is then that of inputs
            zeros = jax.tree.map(lambda z: z.astype(jnp.promote_types(z.dtype, x.dtype)), zeros)
        if self.reverse or not self.has_variable("carry", "state"):
            return zeros
        carried = self.get_variable("carry", "state")
        there, here = ([leaf.shape for leaf in jax.tree.leaves(each)] for each in (carried, zeros))
        if there != here:
            raise InputError(f"the carried state must be of shapes {here}, not {there}.")
        return carried


class Bidirectional(nn.Module):
    """Two layers of one input, one of them from the end, side by side: [batch, time, n + n'].

    Both are `Recurrent`, or layers that are called like it.
    """

    forward: nn.Module
    backward: nn.Module

    def __call__(
        self, x: jax.Array, lengths: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        both = [layer(x, lengths, train) for layer in (self.forward, self.backward)]
        return jnp.concatenate(both, axis=-1)


class Stacked(nn.Module):
    """Layers on top of each other, with dropout before each and after the last."""

    layers: Sequence[nn.Module]
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: jax.Array, lengths: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        def dropped(x: jax.Array) -> jax.Array:
            return nn.Dropout(self.dropout, broadcast_dims=(1,), deterministic=not train)(x)

        for layer in self.layers:
            x = layer(dropped(x), lengths, train)
        return dropped(x)


def no_carry(model: nn.Module, variables: Any, inputs: Any) -> dict[str, Any]:
    """{"carry": zeros}, which is where `model` starts without; {} if it carries nothing.

    Args:
        model, variables: called as `model.apply(variables, inputs)`.
        inputs: an array, a `jax.ShapeDtypeStruct` or a tree; only shapes and dtypes matter.
    """

    def apply(variables: Any, inputs: Any) -> Any:
        return model.apply(variables, inputs, mutable=["carry"])[1]

    shapes = jax.eval_shape(apply, variables, inputs)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), dict(shapes))


def check_sequence(x: jax.Array, lengths: jax.Array | None) -> None:
    """Raise `InputError` unless x is [batch, time, features] and the lengths, if any, fit it."""
    if x.ndim != 3:
        raise InputError(f"a sequence layer takes [batch, time, features], not {list(x.shape)}.")
    if lengths is None:
        return
    if lengths.shape != x.shape[:1] or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise InputError(
            f"lengths must be an integer for each of the {len(x)} sequences, not "
            f"{lengths.dtype}{list(lengths.shape)}."
        )
    if not isinstance(lengths, Tracer):
        known = np.asarray(lengths)
        least, most = known.min(initial=0), known.max(initial=0)
        if least < 0 or most > x.shape[1]:
            raise InputError(
                f"lengths must be from 0 to the {x.shape[1]} steps, not from {least} to {most}."
            )
