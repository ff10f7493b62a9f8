# pyright: reportMissingImports=false, reportCallIssue=false, reportAttributeAccessIssue=false
"""How many episodes a second does the Neural Turing Machine train on, here and in plain PyTorch?

Answer: 491, 1,022 and 1,210 at 1, 16 and 64 episodes a step: 34, 12 and 4.2 times as many as in
PyTorch.

The copy task with a feed-forward controller of 100 units, a memory of 128 × 20 and one head of each
kind (`nnlab.models.NTM`). The other side is the same network as one would write it in PyTorch, a
loop over time of batched operations, with the same loss, clipping and Adam, and starts from the
same weights; `tests/experiments/benchmarks/test_ntm_torch.py` compares outputs and gradients. Both
get the same batch again and again, are measured in one process and in turn, and figures are medians
over the rounds.

On two idle cores of an AMD EPYC, PyTorch 2.13 (`results/ntm_torch.json`): 491, 1,022
and 1,210 episodes a second at 1, 16 and 64 a step, 34, 12 and 4.2 times as many as PyTorch's.

Run it on an idle machine:

    python experiments/benchmarks/ntm_torch.py
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # or PyTorch's threads spin beside the next

import jax
import numpy as np
import optax

from nnlab import figures, runs, training
from nnlab.costs.measuring import in_turn
from nnlab.errors import needs
from nnlab.models import NTM
from nnlab.runs.fields import Positive, PositiveInt, Seed, Some
from nnlab.runs.script import run
from nnlab.sequences.algorithmic_tasks import copy
from nnlab.sequences.episode_scores import bits_per_sequence

LEARNING_RATE, CLIP = 1e-3, 10.0


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/ntm_torch"
    batch_sizes: Some[PositiveInt] = (1, 16, 64)
    """Episodes a training step."""
    length: PositiveInt = 20
    """Words to copy; an episode has twice as many steps, and one."""
    repeats: PositiveInt = 21
    """Rounds of timing."""
    patience: Positive = 60.0
    """Seconds of measurements after which one is not repeated further."""
    seed: Seed = 0


def main(config: Config) -> None:
    with needs("benchmark"):
        import torch
    with config.open() as record:
        record.result({"torch": torch.__version__, "torch threads": torch.get_num_threads()})
        for batch_size in config.batch_sizes:
            steps = calls(batch_size, config.length, config.seed)
            taken = in_turn(steps, config.repeats, config.patience)
            rates = {who: batch_size / np.median(seconds) for who, seconds in taken.items()}
            row: dict[str, Any] = {"episodes a step": batch_size}
            row |= {f"{who}, episodes / s": float(rate) for who, rate in rates.items()}
            record.row(row | {"times as fast": float(rates["nnlab"] / rates["PyTorch"])})
        figures.print_table(record.rows())


def calls(batch_size: int, length: int, seed: int) -> dict[str, Callable[[], object]]:
    """Return a training step of each."""
    import torch_ntm

    inputs, labels = copy(jax.random.key(seed), batch_size, (length, length))
    model = NTM(labels[0].shape[-1])
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(LEARNING_RATE))
    state = training.init(jax.random.key(seed), model, optimizer, inputs)
    batch = inputs, labels
    pytorch = torch_ntm.training_step(state.params, model.width, batch, LEARNING_RATE, CLIP)
    step = training.train_step(model, optimizer, bits_per_sequence, metrics=lambda *_: {})
    program = jax.jit(step, donate_argnums=0).lower(state, batch).compile()

    def ours():
        nonlocal state
        state, metrics = program(state, batch)
        jax.block_until_ready(metrics)

    return {"nnlab": ours, "PyTorch": pytorch}


if __name__ == "__main__":
    run(main, Config)
