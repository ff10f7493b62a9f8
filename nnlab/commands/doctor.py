"""Name what of a network cannot learn, from one batch with fresh weights.

    nnlab doctor resnet20 --arithmetic adder
    nnlab doctor resnet20 --arithmetic my_module:MY_ARITHMETIC
    nnlab doctor my_module:MyNetwork --input-shape 32 32 3 --fields arithmetic=adder

Inputs are random numbers, labels random classes; the loss is the cross-entropy where a network
gives a number a class, and the mean squared error otherwise. `nnlab.runs.fit` does the same with
your data and loss before the first step, and `nnlab.training.diagnose` in Python. The exit status
is 1 where a fault is found.
"""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlab import training
from nnlab.commands import summary
from nnlab.errors import InputError, needs
from nnlab.models import ZOO
from nnlab.runs.fields import PositiveInt, Seed, check_fields
from nnlab.runs.script import run

with needs("runs"):
    import tyro

_EXAMPLES = 16


@dataclasses.dataclass(frozen=True)
class Config:
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|MODULE:CLASS")]
    """A network of `nnlab summary`, or a Flax module of yours."""
    arithmetic: str = "float"
    """Arithmetic of the network: a name such as adder, or MODULE:NAME of your own."""
    fields: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """Arguments of the class of a network of your own."""
    input_shape: tuple[PositiveInt, ...] = ()
    """Shape of one input (default: as published)."""
    steps: PositiveInt = 1000
    """Steps that the training will have."""
    seed: Seed = 0

    def __post_init__(self):
        check_fields(self)
        self.summarized()

    def summarized(self) -> summary.Config:
        """Return the network as `nnlab summary` takes it, which checks it."""
        own = ":" in self.model
        shape = self.input_shape if own else ()
        return summary.Config(self.model, self.arithmetic, input_shape=shape, fields=self.fields)


def _loss(outputs: Any, targets: Any) -> jax.Array:
    outputs = getattr(outputs, "logits", outputs)
    if jnp.issubdtype(targets.dtype, jnp.integer):
        return training.cross_entropy(outputs, targets)
    return jnp.square(outputs - targets).mean()


def main(config: Config) -> None:
    model, rng = summary.build(config.summarized()), np.random.default_rng(config.seed)
    entry = ZOO.get(config.model)
    dtype = jnp.dtype(entry.dtype if entry else jnp.float32)
    shape = config.input_shape or (entry.shape if entry else ())
    inputs: Any = rng.normal(size=(_EXAMPLES, *shape)).astype(np.float32)
    if jnp.issubdtype(dtype, jnp.integer):
        inputs = rng.integers(0, 10, inputs.shape).astype(dtype)
    try:
        outputs, variables = jax.jit(model.init_with_output)(jax.random.key(config.seed), inputs)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise InputError(
            f"{config.model} does not take inputs of {'x'.join(map(str, shape))}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    *places, classes = outputs.shape
    targets: Any = rng.integers(0, classes, places)
    if len(places) > 1 and dtype == jnp.float32:
        targets = rng.normal(size=outputs.shape).astype(np.float32)
    faults = training.diagnose(model, variables, (inputs, targets), _loss, steps=config.steps)
    for fault in faults:
        print(fault)
    if faults:
        raise SystemExit(1)
    print(f"{config.model}: nothing is found that cannot learn.")


if __name__ == "__main__":
    run(main, Config)
