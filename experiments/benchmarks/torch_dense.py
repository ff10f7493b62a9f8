"""YOLO v3 tiny, U-Net and DCGAN in PyTorch, the peers of `dense_prediction.py`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

Call = Callable[[], object]


def unit(inputs: int, features: int, size: int = 3, slope: float = 0.1) -> nn.Sequential:
    """Return a convolution, BatchNorm and a leaky rectifier."""
    layer = nn.Conv2d(inputs, features, size, padding=size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(features), nn.LeakyReLU(slope, inplace=True))


class YOLOv3Tiny(nn.Module):
    def __init__(self, classes: int = 80):
        super().__init__()
        widths = (3, 16, 32, 64, 128, 256)
        self.stages = nn.ModuleList(map(unit, widths, widths[1:]))
        self.deep = nn.ModuleList([unit(256, 512), unit(512, 1024), unit(1024, 256, 1)])
        last = 3 * (5 + classes)
        self.coarse = nn.Sequential(unit(256, 512), nn.Conv2d(512, last, 1))
        self.across = unit(256, 128, 1)
        self.fine = nn.Sequential(unit(384, 256), nn.Conv2d(256, last, 1))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        beside = x
        for stage in self.stages:
            beside = stage(x)
            x = functional.max_pool2d(beside, 2)
        first, second, third = self.deep
        x = functional.pad(first(x), (0, 1, 0, 1), value=-torch.inf)
        route = third(second(functional.max_pool2d(x, 2, 1)))
        up = functional.interpolate(self.across(route), scale_factor=2)
        return [self.coarse(route), self.fine(torch.cat([up, beside], 1))]


class UNet(nn.Module):
    def __init__(self, classes: int = 2, width: int = 16, levels: int = 4):
        super().__init__()

        def double(inputs: int, features: int) -> nn.Sequential:
            return nn.Sequential(
                unit(inputs, features, slope=0.0), unit(features, features, slope=0.0)
            )

        sizes = [width * 2**level for level in range(levels + 1)]
        self.down = nn.ModuleList(map(double, [3, *sizes], sizes))
        back = sizes[-2::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * size, size, 2, 2) for size in back)
        self.join = nn.ModuleList(double(2 * size, size) for size in back)
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        across = []
        for number, level in enumerate(self.down):
            x = level(functional.max_pool2d(x, 2) if number else x)
            across.append(x)
        across.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([across.pop(), up(x)], 1))
        return [self.last(x)]


def network_calls(
    kind: type[nn.Module], images: np.ndarray, channels_last: bool
) -> tuple[Call, Call]:
    """Return the inference of a batch, and a training step: mean squares of outputs, SGD."""
    torch.set_num_threads(1)
    model: Any = kind()
    x = torch.tensor(images).permute(0, 3, 1, 2).contiguous()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)

    def infer() -> object:
        model.eval()
        with torch.inference_mode():
            return model(x)

    def step() -> object:
        model.train()
        optimizer.zero_grad()
        torch.stack([each.square().mean() for each in model(x)]).sum().backward()
        return optimizer.step()

    return infer, step


def gan_calls(
    images: np.ndarray, latents: int, features: int, channels_last: bool
) -> tuple[Call, Call]:
    """Return images of a batch, and one update of DCGAN's critic and of its generator."""
    torch.set_num_threads(1)
    size, channels = images.shape[1], images.shape[3]
    halvings = int(np.log2(size / 4))
    width = features * 2 ** (halvings - 1)
    layers: list[nn.Module] = [nn.ConvTranspose2d(latents, width, 4, bias=False)]
    for _ in range(halvings - 1):
        layers += [nn.BatchNorm2d(width), nn.ReLU(True)]
        layers += [nn.ConvTranspose2d(width, width // 2, 4, 2, 1, bias=False)]
        width //= 2
    layers += [nn.BatchNorm2d(width), nn.ReLU(True)]
    layers += [nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Tanh()]
    generator: Any = nn.Sequential(*layers)
    layers = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for _ in range(halvings - 1):
        layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width)]
        layers += [nn.LeakyReLU(0.2, True)]
        width *= 2
    critic: Any = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, bias=False), nn.Flatten(0))
    real = torch.tensor(images).permute(0, 3, 1, 2).contiguous()
    if channels_last:
        generator, critic = (
            each.to(memory_format=torch.channels_last) for each in (generator, critic)
        )
        real = real.to(memory_format=torch.channels_last)
    optimizers = [
        torch.optim.Adam(each.parameters(), 2e-4, (0.5, 0.999)) for each in (generator, critic)
    ]

    def draw() -> torch.Tensor:
        return torch.randn(len(real), latents, 1, 1)

    def infer() -> object:
        generator.eval()
        with torch.inference_mode():
            return generator(draw())

    def step() -> object:
        generator.train()
        fake = generator(draw())
        optimizers[1].zero_grad()
        loss = functional.softplus(-critic(real)).mean()
        (loss + functional.softplus(critic(fake.detach())).mean()).backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        functional.softplus(-critic(fake)).mean().backward()
        return optimizers[0].step()

    return infer, step
