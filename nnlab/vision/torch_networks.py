# pyright: reportMissingImports=false
"""ResNet-20, VGG-Small and LeNet-5 in PyTorch, for measuring this kit's CNNs beside them.

The layers are those of `nnlab.models.resnet20`, `VGGSmall` and `LeNet5` in float, in the same
order. Images are [batch, channels, height, width]. PyTorch is in the extra `torch`.
"""

from nnlab.errors import needs

with needs("torch"):
    from torch import nn
    from torch.nn import functional


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut, which is a 1×1 convolution if the size changes."""

    def __init__(self, inputs: int, features: int, stride: int):
        super().__init__()
        self.main = nn.Sequential(
            *convolution(inputs, features, 3, 1, stride),
            nn.ReLU(),
            *convolution(features, features, 3, 1),
        )
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut = nn.Sequential(*convolution(inputs, features, 1, 0, stride))

    def forward(self, x):
        return functional.relu(self.main(x) + self.shortcut(x))


def convolution(
    inputs: int, features: int, size: int, padding: int, stride: int = 1
) -> tuple[nn.Module, nn.Module]:
    """Return a convolution without bias, and its BatchNorm."""
    conv = nn.Conv2d(inputs, features, size, stride, padding, bias=False)
    return conv, nn.BatchNorm2d(features)


def resnet20() -> nn.Module:
    layers: list[nn.Module] = [*convolution(3, 16, 3, 1), nn.ReLU()]
    inputs = 16
    for features, stride in ((16, 1), (32, 2), (64, 2)):
        for block in range(3):
            layers.append(Block(inputs, features, stride if block == 0 else 1))
            inputs = features
    mean = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *mean, nn.Linear(64, 10, bias=False), nn.BatchNorm1d(10))


def vgg_small() -> nn.Module:
    layers: list[nn.Module] = []
    inputs = 3
    for features in (128, 256, 512):
        second, norm = convolution(features, features, 3, 1)
        first = (*convolution(inputs, features, 3, 1), nn.ReLU())
        layers += [*first, second, nn.MaxPool2d(2), norm, nn.ReLU()]
        inputs = features
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8192, 10))


def lenet5() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, features in ((1, 6), (6, 16)):
        layers += [*convolution(inputs, features, 5, 0), nn.ReLU(), nn.MaxPool2d(2)]
    layers.append(nn.Flatten())
    for inputs, features in ((400, 120), (120, 84)):
        layers += [nn.Linear(inputs, features, bias=False), nn.BatchNorm1d(features), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(84, 10, bias=False), nn.BatchNorm1d(10))


NETWORKS = {"resnet20": resnet20, "vgg_small": vgg_small, "lenet5": lenet5}
