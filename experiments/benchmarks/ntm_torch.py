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
import torch
from torch import nn
from torch.nn import functional

from nnlab import figures, runs, training
from nnlab.costs.measuring import in_turn
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


class TorchNTM(nn.Module):
    """`nnlab.models.NTM(outputs, width=width, locations=…, size=…)` with its parameters."""

    def __init__(self, params: Any, width: int):
        super().__init__()
        reads, locations = params["first_reads"], params["first_weightings"]
        self.size, self.locations = reads.shape[1], locations.shape[1]
        self.first_reads = nn.Parameter(torch.tensor(np.asarray(reads)))
        self.first_weightings = nn.Parameter(torch.tensor(np.asarray(locations)))
        cell = params["cell"]
        inputs = cell["controller1"]["kernel"].shape[0]
        self.controller = nn.Linear(inputs, width)
        self.heads = nn.Linear(width, 2 * (self.size + 6) + 2 * self.size)
        self.output = nn.Linear(width + self.size, cell["output"]["kernel"].shape[1])
        for layer, name in (
            (self.controller, "controller1"),
            (self.heads, "heads"),
            (self.output, "output"),
        ):
            with torch.no_grad():
                layer.weight.copy_(torch.tensor(np.asarray(cell[name]["kernel"])).T)
                layer.bias.copy_(torch.tensor(np.asarray(cell[name]["bias"])))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, steps = x.shape[:2]
        memory = torch.full((batch, self.locations, self.size), 1e-6)
        reads = torch.tanh(self.first_reads).expand(batch, -1)
        weightings = torch.softmax(self.first_weightings, -1).expand(batch, -1, -1)
        logits = []
        for step in range(steps):
            h = torch.tanh(self.controller(torch.cat([x[:, step], reads], -1)))
            emitted = self.heads(h).clamp(-20, 20)
            heads, erase, add = emitted.split([2 * (self.size + 6), self.size, self.size], -1)
            weightings = self.address(memory, weightings, heads.view(batch, 2, -1))
            reads = torch.einsum("bn,bnw->bw", weightings[:, 0], memory)
            place = weightings[:, 1, :, None]
            memory = memory * (1 - place * torch.sigmoid(erase)[:, None])
            memory = memory + place * torch.tanh(add)[:, None]
            logits.append(self.output(torch.cat([h, reads], -1)))
        return torch.stack(logits, 1)

    def address(
        self, memory: torch.Tensor, previous: torch.Tensor, emitted: torch.Tensor
    ) -> torch.Tensor:
        keys, strength, gate, sharpness, shifts = emitted.split([self.size, 1, 1, 1, 3], -1)
        keys = torch.tanh(keys)
        products = torch.einsum("bhw,bnw->bhn", keys, memory)
        norms = (keys.square().sum(-1) + 1e-8)[..., None] * (memory.square().sum(-1) + 1e-8)[
            :, None
        ]
        content = torch.softmax(functional.softplus(strength) * products * norms.rsqrt(), -1)
        gate = torch.sigmoid(gate)
        gated = gate * content + (1 - gate) * previous
        shifts = torch.softmax(shifts, -1)
        shifted = sum(gated.roll(k - 1, -1) * shifts[..., k, None] for k in range(3))
        sharp = (shifted + 1e-30) ** (1 + functional.softplus(sharpness))
        return sharp / sharp.sum(-1, keepdim=True)


def torch_loss(logits: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Bits a sequence."""
    nats = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(-1)
    return (nats * mask).sum() / (len(targets) * np.log(2))


def calls(batch_size: int, length: int, seed: int) -> dict[str, Callable[[], object]]:
    """Return a training step of each."""
    inputs, labels = copy(jax.random.key(seed), batch_size, (length, length))
    model = NTM(labels[0].shape[-1])
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(LEARNING_RATE))
    state = training.init(jax.random.key(seed), model, optimizer, inputs)
    theirs = TorchNTM(state.params, model.width)
    adam = torch.optim.Adam(theirs.parameters(), LEARNING_RATE)
    x, targets, mask = (torch.tensor(np.asarray(a)) for a in (inputs, *labels))
    step = training.train_step(model, optimizer, bits_per_sequence, metrics=lambda *_: {})
    program = jax.jit(step, donate_argnums=0).lower(state, (inputs, labels)).compile()

    def ours():
        nonlocal state
        state, metrics = program(state, (inputs, labels))
        jax.block_until_ready(metrics)

    def pytorch():
        adam.zero_grad()
        torch_loss(theirs(x), targets, mask).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), CLIP)
        adam.step()

    return {"nnlab": ours, "PyTorch": pytorch}


if __name__ == "__main__":
    run(main, Config)
