# pyright: reportMissingImports=false, reportCallIssue=false, reportAttributeAccessIssue=false
"""What users run today, in PyTorch: convolutions, the published adder layer, whole CNNs."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from nnlab.vision.torch_networks import NETWORKS

Call = Callable[[], object]


class PublishedAdder(torch.autograd.Function):
    """Chen et al., AdderNet, CVPR 2020, equations 2, 4 and 6, as the formulas read.

    Columns x [terms, positions] and w [filters, terms] give [filters, positions].
    """

    @staticmethod
    def forward(ctx, x, w):  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, w)
        return -(w.unsqueeze(2) - x.unsqueeze(0)).abs().sum(1)

    @staticmethod
    def backward(ctx, g):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, w = ctx.saved_tensors
        difference = x.unsqueeze(0) - w.unsqueeze(2)
        dw = (difference * g.unsqueeze(1)).sum(2)
        dx = (difference.clamp(-1, 1).neg() * g.unsqueeze(1)).sum(0)
        return dx, dw


def published_adder(x, w, padding):
    columns = functional.unfold(x, w.shape[2:], padding=padding)  # [batch, terms, positions]
    size = x.shape[2] + 2 * padding - w.shape[2] + 1
    flat = columns.permute(1, 0, 2).reshape(columns.shape[1], -1)
    y = PublishedAdder.apply(flat, w.flatten(1))
    return y.reshape(len(w), len(x), size, size).permute(1, 0, 2, 3)  # pyright: ignore


def layer(
    name: str, backward: bool, x: np.ndarray, kernel: np.ndarray, g: np.ndarray, padding: int
) -> Call:
    """Return a call of the layer `name` on images [n, h, w, in] and a kernel [kh, kw, in, out]."""
    images = torch.tensor(x).permute(0, 3, 1, 2)  # channels last
    weights = torch.tensor(kernel).permute(3, 2, 0, 1)
    cotangents = torch.tensor(g).permute(0, 3, 1, 2)
    if name == "torch.cdist":
        columns = functional.unfold(images, weights.shape[2:], padding=padding)
        rows = columns.transpose(1, 2).flatten(0, 1).contiguous()
        filters = weights.contiguous().flatten(1)
        return lambda: torch.cdist(rows, filters, p=1)
    if name == "PyTorch int8 conv2d":
        return _int8(images, weights, padding)
    if name == "PyTorch conv2d":
        weights = weights.contiguous(memory_format=torch.channels_last)
        run = functional.conv2d
    else:
        images, weights, cotangents = (a.contiguous() for a in (images, weights, cotangents))
        run = published_adder
    if not backward:
        return torch.no_grad()(lambda: run(images, weights, padding=padding))
    images.requires_grad_()
    weights.requires_grad_()

    def passes():
        y = run(images, weights, padding=padding)
        return y, torch.autograd.grad(y, (images, weights), cotangents)

    return passes


def _int8(images, weights, padding) -> Call:
    conv = torch.ao.nn.quantized.Conv2d(*weights.shape[1::-1], weights.shape[2], padding=padding)
    conv.set_weight_bias(
        torch.quantize_per_tensor(weights.contiguous(), 0.03, 0, torch.qint8), None
    )
    codes = torch.quantize_per_tensor(images, 0.03, 128, torch.quint8)
    return lambda: conv(codes)


def network(
    name: str, train: bool, images: np.ndarray, labels: np.ndarray, channels_last: bool
) -> Call:
    """Return a training step (SGD with momentum, as AdderNet's) or the inference of a batch."""
    model = NETWORKS[name]().train(train)
    x, y = torch.tensor(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    if not train:
        return torch.inference_mode()(lambda: model(x))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)

    def step():
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step
