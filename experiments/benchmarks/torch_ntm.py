"""The Neural Turing Machine and its training step in PyTorch, as one writes them there."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


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


def training_step(
    params: Any, width: int, batch: Any, learning_rate: float, clip: float
) -> Callable[[], object]:
    """Return the training step by Adam of a `TorchNTM` with `params`, on one batch."""
    inputs, labels = batch
    model = TorchNTM(params, width)
    adam = torch.optim.Adam(model.parameters(), learning_rate)
    x, targets, mask = (torch.tensor(np.asarray(a)) for a in (inputs, *labels))

    def step():
        adam.zero_grad()
        torch_loss(model(x), targets, mask).backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        adam.step()

    return step
