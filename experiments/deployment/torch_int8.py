# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""A trained CNN of ours in PyTorch, in float32 and quantised to int8 by PyTorch's own tools."""

import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from nnlab.vision.torch_networks import NETWORKS

PRODUCTS = (nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm2d, nn.BatchNorm1d)


def with_weights(name: str, variables: Any) -> nn.Module:
    """Return the network `name` in evaluation mode, with the Flax variables of ours."""
    model = NETWORKS[name]().eval()
    modules = list(model.modules())
    kernels = _leaves(variables["params"], "kernel")
    scales, shifts, means, deviations = (
        _leaves(variables[group], leaf)
        for group, leaf in (
            *(("params", "scale"), ("params", "bias")),
            *(("batch_stats", "mean"), ("batch_stats", "var")),
        )
    )
    width = 0  # features of the layer before
    with torch.no_grad():
        for module in modules:
            if isinstance(module, PRODUCTS):
                kernel = next(kernels)
                if kernel.ndim == 2 and len(kernel) > width:  # flattened: our channels come last
                    kernel = kernel.unflatten(0, (-1, width)).transpose(0, 1).flatten(0, 1)
                width = kernel.shape[-1]
                order = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
                module.weight.copy_(kernel.permute(order))
            elif isinstance(module, NORMS):
                module.weight.copy_(next(scales))
                module.bias.copy_(next(shifts))
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.copy_(next(means))
                module.running_var.copy_(next(deviations))
    return model


def int8(model: nn.Module, images: np.ndarray) -> nn.Module:
    """Quantise the network statically, calibrated on images [n, height, width, channels]."""
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # that these tools move to another package
        engine = torch.backends.quantized.engine
        observed = prepare_fx(model, get_default_qconfig_mapping(engine), (_tensor(images[:8]),))
        for start in range(0, len(images), 128):
            observed(_tensor(images[start : start + 128]))
        return convert_fx(observed)


def logits(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Return the logits [n, classes] of images [n, height, width, channels]."""
    with torch.inference_mode():
        return model(_tensor(images)).numpy()


def inference(model: nn.Module, images: np.ndarray) -> Callable[[], object]:
    """Return a call that computes the logits of a batch, channels last."""
    batch = _tensor(images).contiguous(memory_format=torch.channels_last)
    return torch.inference_mode()(lambda: model(batch))


def file_bytes(model: nn.Module) -> int:
    """Return the size of the file that PyTorch writes."""
    torch.save(model.state_dict(), file := io.BytesIO())
    return len(file.getvalue())


def _tensor(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(images).permute(0, 3, 1, 2)


def _leaves(tree: Any, name: str) -> Iterator[torch.Tensor]:
    """Yield the leaves `name` of Flax modules in the order in which a model calls them."""

    def place(key: str) -> tuple[int, int]:
        kind, _, number = key.rpartition("_")
        norm = 0 if number == "0" else 3  # blocks come after the first normalisation
        ranks = {"Conv": 0, "BasicBlock": 1, "Dense": 2, "BatchNorm": norm}
        return ranks[kind], int(number)

    for key in sorted(tree, key=place):
        if key.startswith("BasicBlock"):
            yield from _leaves(tree[key], name)
        elif name in tree[key]:
            yield torch.tensor(np.array(tree[key][name]))
