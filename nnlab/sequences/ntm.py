r"""The Neural Turing Machine: a controller with a memory that it reads and writes by attention.

At every step the controller sees the input and what its heads read one step before. Its output says
how each head addresses the memory and what the write heads erase and add; together with what is
read now it makes the network's output. All heads address, and read, the memory of the step before;
then the heads write. The equations are in `nnlab.sequences.addressing`.

With m inputs, k outputs, C units, a memory of N × W, R read and H write heads, offsets -s to s and
L layers the numbers of parameters are

- controller, feed-forward: C (m + R W + 1) + (L - 1) C (C + 1), or those of its cells;
- heads: (C + 1) ((R + H) (W + 2 s + 4) + 2 H W);
- output: k (C + R W + 1);
- start: R W + (R + H) N for reads and weightings.

For the copy task (m = 9, k = 8, C = 100, memory 128 × 20, one head of each kind, s = 1, L = 1) they
sum to 13,536, and with an LSTM to 62,536. The paper gives 17,162 and 67,561 and does not say how
these are counted.

Where the paper leaves a choice open we follow Collier & Beel: keys and additions go through tanh;
the memory starts at a constant, 1e-6, which they find to train 3.5 times as fast as a learned
start; reads and weightings start at learned values, tanh and softmax of parameters, and the
controller's state at zeros; and the parameters of the heads are clipped to ±20. The order of
reading and writing is also theirs. The paper learns all of the start.

References:
    Graves, Wayne & Danihelka, Neural Turing Machines, 2014, https://arxiv.org/abs/1410.5401,
    sections 3 and 4; Collier & Beel, Implementing Neural Turing Machines, 2018,
    https://arxiv.org/abs/1807.08518, section 3.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from nnlab.arithmetics import FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.layers.recurrent import Cell
from nnlab.networks import Count, Network
from nnlab.sequences.addressing import address, read, write


class NTMState(NamedTuple):
    """The state of a Neural Turing Machine between two steps, float32 at least.

    Attributes:
        memory: [batch, N, W].
        reads: [batch, R, W].
        weightings: [batch, R + H, N], read heads first.
        controller: a carry for each layer of the controller; none if it is feed-forward.
    """

    memory: jax.Array
    reads: jax.Array
    weightings: jax.Array
    controller: tuple[Any, ...]


class Unrolled(NamedTuple):
    """Outputs [batch, time, k], weightings [batch, time, R + H, N], and the state at the end."""

    logits: jax.Array
    weightings: jax.Array
    state: NTMState


class NTMCell(nn.Module):
    """One step, `cell(state, x) -> (state, (logits, weightings))`; attributes are the `NTM`'s."""

    outputs: int
    controller: type[Cell] | None
    width: int
    layers: int
    arithmetic: Arithmetic
    norm: bool
    read_heads: int
    write_heads: int
    offsets: int
    clip: float

    @nn.compact
    def __call__(self, state: NTMState, x: jax.Array) -> tuple[NTMState, tuple]:
        batch, _, size = state.memory.shape
        reads, writes = self.read_heads, self.write_heads
        h = jnp.concatenate([x, state.reads.reshape(batch, -1)], axis=-1)
        carries = []
        for number in range(1, self.layers + 1):
            name = f"controller{number}"
            if self.controller is None:
                h = self.arithmetic.dense(self.width, use_bias=True, name=name)(h)
                h = jnp.tanh(nn.LayerNorm(name=f"norm{number}")(h) if self.norm else h)
            else:
                cell = self.controller(self.width, self.arithmetic.dense, self.norm, name=name)
                carry, h = cell(state.controller[number - 1], h)
                carries.append(carry)

        addresses, written = (reads + writes) * (size + self.offsets + 3), 2 * writes * size
        said = nn.Dense(addresses + written, name="heads")(h)
        said = jnp.clip(said, -self.clip, self.clip)
        heads = said[:, :addresses].reshape(batch, reads + writes, size + self.offsets + 3)
        erase, add = jnp.split(said[:, addresses:].reshape(batch, 2 * writes, size), 2, axis=1)
        weightings = address(
            state.memory,
            state.weightings,
            keys=jnp.tanh(heads[..., :size]),
            strengths=jax.nn.softplus(heads[..., size]),
            gates=jax.nn.sigmoid(heads[..., size + 1]),
            sharpness=1 + jax.nn.softplus(heads[..., size + 2]),
            shifts=jax.nn.softmax(heads[..., size + 3 :]),
        )
        words = read(state.memory, weightings[:, :reads])
        memory = write(state.memory, weightings[:, reads:], jax.nn.sigmoid(erase), jnp.tanh(add))
        h = jnp.concatenate([h, words.reshape(batch, -1)], axis=-1)
        logits = nn.Dense(self.outputs, name="output")(h)
        return NTMState(memory, words, weightings, tuple(carries)), (logits, weightings)


class NTM(Network):
    """A network that maps sequences [batch, time, m] to logits [batch, time, k], float32.

    The weightings of all steps are sown as intermediates "read_weightings" [batch, time, R, N] and
    "write_weightings" [batch, time, H, N]. Every sequence starts anew; the methods `start` and
    `unroll` go on from a state, or take a single step:

        state = model.apply(variables, batch, method="start")
        logits, weightings, state = model.apply(variables, x, state, method="unroll")

    Attributes:
        outputs: k.
        controller: class of its cells, such as `nnlab.layers.LSTMCell`; None is feed-forward with
            tanh.
        width, layers: units C and number L of the controller's layers.
        arithmetic: arithmetic of the controller's products; heads and output are float.
        norm: LayerNorm in the controller, which adders need (`nnlab.layers.recurrent`).
        read_heads, write_heads: R and H.
        locations, size: size of the memory, N and W.
        reach: s, how far a step can shift a weighting.
        fill: the number that fills the memory at the start.
        clip: bound of the parameters that the controller gives the heads.

    Raises:
        InputError: a size is below 1, `reach` is negative or beyond the memory, or
            the inputs are not [batch, time, m].
    """

    outputs: int
    controller: type[Cell] | None = None
    width: int = 100
    layers: int = 1
    arithmetic: Arithmetic = FLOAT
    norm: bool = False
    read_heads: int = 1
    write_heads: int = 1
    locations: int = 128
    size: int = 20
    reach: Count = 1
    fill: float = 1e-6
    clip: float = 20.0

    def setup(self):
        if not 0 <= self.reach <= self.locations:
            raise InputError(
                f"reach must be from 0 to the {self.locations} locations, not {self.reach}."
            )
        heads = self.read_heads + self.write_heads
        start = nn.initializers.normal(1.0)  # a uniform one would make all locations alike
        self.first_reads = self.param(
            "first_reads", start, (self.read_heads, self.size), jnp.float32
        )
        self.first_weightings = self.param(
            "first_weightings", start, (heads, self.locations), jnp.float32
        )
        # In the backward pass a step is computed again, instead of kept with all its arrays of
        # the size of the memory: half the time on a CPU.
        scanned = nn.scan(
            nn.remat(NTMCell, prevent_cse=False),
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": False},
            in_axes=1,
            out_axes=1,
        )
        self.cell = scanned(
            self.outputs,
            self.controller,
            self.width,
            self.layers,
            self.arithmetic,
            self.norm,
            self.read_heads,
            self.write_heads,
            2 * self.reach + 1,
            self.clip,
        )

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        logits, weightings, _ = self.unroll(x)
        self.sow("intermediates", "read_weightings", weightings[:, :, : self.read_heads])
        self.sow("intermediates", "write_weightings", weightings[:, :, self.read_heads :])
        return logits

    def start(self, batch: int, dtype: DTypeLike = jnp.float32) -> NTMState:
        """Return the state before the first step of `batch` sequences of a dtype.

        The state is float32 at least.
        """
        carries = ()
        if self.controller is not None:
            cell = self.controller(self.width, parent=None)
            carry = cell.initialize_carry(jax.random.key(0), (batch, 1))
            carries = (carry,) * self.layers

        def for_all(one: jax.Array) -> jax.Array:
            return jnp.broadcast_to(one, (batch, *one.shape))

        state = NTMState(
            jnp.full((batch, self.locations, self.size), self.fill),
            for_all(jnp.tanh(self.first_reads)),
            for_all(jax.nn.softmax(self.first_weightings)),
            carries,
        )
        wide = jnp.promote_types(dtype, jnp.float32)
        return jax.tree.map(lambda leaf: leaf.astype(wide), state)

    def unroll(self, x: jax.Array, state: NTMState | None = None) -> Unrolled:
        """Take the steps of x [batch, time, m] from a state, by default that of the start."""
        if x.ndim != 3:
            raise InputError(f"an NTM takes [batch, time, features], not {list(x.shape)}.")
        state = self.start(len(x), x.dtype) if state is None else state
        state, (logits, weightings) = self.cell(state, x)
        return Unrolled(logits, weightings, state)
