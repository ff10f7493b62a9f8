"""A GPT in PyTorch, which `decoder.py` measures beside ours."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

Call = Callable[[], object]


class Decoder(nn.Module):
    """The same shape in PyTorch, with keys and values in arrays of full length."""

    def __init__(self, symbols: int, positions: int, features: int, layers: int, heads: int):
        super().__init__()
        self.word, self.place = nn.Embedding(symbols, features), nn.Embedding(positions, features)
        self.blocks = nn.ModuleList(_Block(positions, features, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(features, bias=False)
        self.head = nn.Linear(features, symbols, bias=False)

    def forward(self, symbols: torch.Tensor, at: int | None = None) -> torch.Tensor:
        start = at or 0
        x = self.word(symbols) + self.place.weight[start : start + symbols.shape[1]]
        for block in self.blocks:
            x = block(x, at)
        return self.head(self.norm(x if at is None else x[:, -1:]))


class _Block(nn.Module):
    def __init__(self, positions: int, features: int, heads: int):
        super().__init__()
        make = functools.partial(nn.Linear, bias=False)
        self.mixed, self.output = make(features, 3 * features), make(features, features)
        self.up, self.down = make(features, 4 * features), make(4 * features, features)
        self.first, self.second = (nn.LayerNorm(features, bias=False) for _ in range(2))
        self.heads = heads
        self.held = [torch.zeros(1, heads, positions, features // heads) for _ in range(2)]

    def forward(self, x: torch.Tensor, at: int | None) -> torch.Tensor:
        texts, time_, features = x.shape
        parts = self.mixed(self.first(x)).view(texts, time_, 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        if at is not None:
            for held, new in zip(self.held, (k, v), strict=True):
                held[:, :, at : at + time_] = new
            k, v = (held[:, :, : at + time_] for held in self.held)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=time_ > 1)
        x = x + self.output(y.transpose(1, 2).reshape(texts, time_, features))
        return x + self.down(F.gelu(self.up(self.second(x)), approximate="tanh"))


def calls(
    prompt: np.ndarray, count: int, symbols: int, features: int, layers: int, int8: bool
) -> tuple[Call, Call, int]:
    """Read the prompt; write so many symbols; bytes of weights that a symbol reads."""
    torch.set_num_threads(1)
    model: Any = Decoder(symbols, prompt.shape[1] + count, features, layers, heads=12).eval()
    given = torch.from_numpy(prompt.astype(np.int64))
    size = sum(p.numel() for name, p in model.named_parameters() if "place" not in name)
    size = (size - model.word.weight.numel()) * (1 if int8 else 4)
    if int8:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is deprecated, for a package of its own
            model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)

    @torch.inference_mode()
    def read() -> torch.Tensor:
        return model(given, 0)

    @torch.inference_mode()
    def write() -> None:
        last = given[:, -1:]
        for n in range(count):
            last = model(last, prompt.shape[1] + n).argmax(-1)

    read()
    return read, write, size


def training_step(symbols: np.ndarray) -> Call:
    """A step of nanoGPT's network for a CPU on symbols [texts, time + 1]."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Decoder(65, 64, 128, 4, heads=4)
    model.head.weight = model.word.weight
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1)
    given = torch.from_numpy(symbols.astype(np.int64))

    def step() -> None:
        optimizer.zero_grad()
        logits = model(given[:, :-1]).reshape(-1, 65)
        F.cross_entropy(logits, given[:, 1:].reshape(-1)).backward()
        optimizer.step()

    return step
