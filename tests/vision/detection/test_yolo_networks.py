"""Networks of darknet against its configurations, interpreted in PyTorch with its files of weights.

A configuration is the list of its sections, widths in proportion to those published; names below
are darknet's. The interpreter writes its weights as darknet does, and the networks here read them.
"""

import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from nnlab.errors import InputError
from nnlab.vision.darknet import Darknet19, Darknet53
from nnlab.vision.darknet_weights import Header, read_darknet, write_darknet
from nnlab.vision.detection.yolo import TinyYOLO, YOLOv2, YOLOv3, YOLOv3Tiny, reorg
from nnlab.vision.detection.yolo_v1 import YOLOv1, yolo_v1_paper, yolo_v1_tiny

MAX, UP, REORG, AVERAGE = ("max", 2), ("upsample",), ("reorg",), ("average",)


def conv(filters, size, stride=1):
    return ("conv", filters, size, stride)


def out(filters):
    return ("conv", filters, 1, 1, "linear")


def shortcuts(width, count):
    block = [conv(width // 2, 1), conv(width, 3), ("shortcut", -3)]
    return [conv(width, 3, 2), *block * count]


def bottleneck(width, count):  # of Darknet-19: 3×3, 1×1, 3×3, …
    return [conv(width // 2, 1) if n % 2 else conv(width, 3) for n in range(count)]


D19 = [conv(32, 3), MAX, conv(64, 3), MAX, *bottleneck(128, 3), MAX, *bottleneck(256, 3), MAX]
D19 += [*bottleneck(512, 5), MAX, *bottleneck(1024, 5)]
D53 = [conv(32, 3), *(s for n, w in enumerate((64, 128, 256, 512, 1024)) for s in shortcuts(w, 1))]
HEAD = [conv(512, 1), conv(1024, 3)] * 3
V3 = [*D53, *HEAD, out(24), ("grid",), ("route", -4), conv(256, 1), UP, ("route", -1, 16)]
V3 += [*[conv(256, 1), conv(512, 3)] * 3, out(24), ("grid",), ("route", -4), conv(128, 1), UP]
V3 += [("route", -1, 12), *[conv(128, 1), conv(256, 3)] * 3, out(24), ("grid",)]
V3_TINY = [s for w in (16, 32, 64, 128, 256) for s in (conv(w, 3), MAX)]
V3_TINY += [conv(512, 3), ("max", 1), conv(1024, 3), conv(256, 1), conv(512, 3), out(24), ("grid",)]
V3_TINY += [("route", -4), conv(128, 1), UP, ("route", -1, 8), conv(256, 3), out(24), ("grid",)]
V2 = [*D19, conv(1024, 3), conv(1024, 3), ("route", -9), conv(64, 1), REORG, ("route", -1, -4)]
V2 += [conv(1024, 3), out(40), ("grid",)]
V2_TINY = [s for w in (16, 32, 64, 128, 256) for s in (conv(w, 3), MAX)]
V2_TINY += [conv(512, 3), ("max", 1), conv(1024, 3), conv(1024, 3), out(40), ("grid",)]
V1 = [
    conv(64, 7, 2),
    MAX,
    conv(192, 3),
    MAX,
    conv(128, 1),
    conv(256, 3),
    conv(256, 1),
    conv(512, 3),
]
V1 += [MAX, *[conv(256, 1), conv(512, 3)] * 4, conv(512, 1), conv(1024, 3), MAX]
V1 += [*[conv(512, 1), conv(1024, 3)] * 2, conv(1024, 3), conv(1024, 3, 2)]
V1 += [conv(1024, 3), conv(1024, 3)]
V1_TINY = [s for w in (16, 32, 64, 128, 256, 512) for s in (conv(w, 3), MAX)]
V1_TINY += [conv(1024, 3), conv(256, 3), ("connected", 2 * 13)]


def leaky(x):
    return torch.nn.functional.leaky_relu(x, 0.1)


def _reorg_loop(x):
    """reorg_cpu of blas.c with forward=0, stride 2, over the memory of x."""
    batch, c, h, w = x.shape
    flat, result = x.ravel(), np.zeros(x.size, x.dtype)
    for b in range(batch):
        for k in range(c):
            c2, offset = k % (c // 4), k // (c // 4)
            for j in range(h):
                for i in range(w):
                    place = i + w * (j + h * (k + c * b))
                    w2, h2 = i * 2 + offset % 2, j * 2 + offset // 2
                    result[place] = flat[w2 + w * 2 * (h2 + h * 2 * (c2 + c // 4 * b))]
    return result.reshape(batch, 4 * c, h // 2, w // 2)


def interpreted(sections, images, divisor, rng):
    """Run a configuration with random weights: what its grids give, and its file of weights."""
    x, layers, grids, file = torch.tensor(images).permute(0, 3, 1, 2), [], [], []

    def drawn(*shape, low=-1.0, high=1.0):
        values = rng.uniform(low, high, shape).astype(np.float32)
        file.append(values)
        return torch.tensor(values)

    for kind, *given in sections:
        c, height, width = x.shape[1:] if x.ndim == 4 else (0, 0, 0)
        if kind == "conv":
            filters, size, stride, *linear = given
            filters = filters if linear else filters // divisor
            bias, reach = drawn(filters, low=-0.2, high=0.2), 1.7 / (c * size**2) ** 0.5
            norm = (
                None
                if linear
                else (drawn(filters, low=0.8), drawn(filters), drawn(filters, low=0.5))
            )
            kernel = drawn(filters, c, size, size, low=-reach, high=reach)
            y = torch.nn.functional.conv2d(x, kernel, bias if linear else None, stride, size // 2)
            if norm:
                scale, mean, variance = norm
                y = torch.nn.functional.batch_norm(y, mean, variance, scale, bias, eps=1e-5)
            x = y if linear else leaky(y)
        elif kind == "max":
            x = torch.nn.functional.pad(x, (0, 1, 0, 1), value=-torch.inf)
            x = torch.nn.functional.max_pool2d(x, 2, given[0])
        elif kind == "route":
            x = torch.cat([layers[at] for at in given], dim=1)
        elif kind == "shortcut":
            x = x + layers[given[0]]
        elif kind == "upsample":
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        elif kind == "reorg":
            x = torch.tensor(_reorg_loop(x.numpy()))
        elif kind == "average":
            x = x.mean((2, 3), keepdim=True)
        elif kind == "local":
            filters = given[0] // divisor
            bias, windows = (
                drawn(filters, height, width),
                torch.nn.functional.unfold(x, 3, padding=1),
            )
            reach = 1.7 / (c * 9) ** 0.5
            kernels = drawn(height * width, filters, c * 9, low=-reach, high=reach)
            x = torch.einsum("lfk,nkl->nfl", kernels, windows).reshape(-1, filters, height, width)
            x = leaky(x + bias)
        elif kind == "connected":
            x = x.reshape(len(x), -1)
            count = given[0] // divisor if len(given) > 1 else given[0]
            bias = drawn(count)
            x = x @ drawn(count, x.shape[1], low=-0.1, high=0.1).T + bias
            x = leaky(x) if len(given) > 1 else x
        elif kind == "grid":
            grids.append(x.permute(0, 2, 3, 1).numpy())
        layers.append(x)
    return grids or [x.numpy()], np.concatenate([each.ravel() for each in file])


CASES = {
    "darknet19": ([*D19, out(10), AVERAGE], Darknet19(10, features=2), (64, 64), 16),
    "darknet53": (
        [*D53, AVERAGE, out(10)], Darknet53(10, features=2, blocks=(1,) * 5), (64, 32), 16,
    ),
    "yolo_v1": ([*V1, ("local", 256), ("connected", 2 * 18)], YOLOv1(3, features=4), (64, 128), 16),
    "yolo_v1_paper": (
        [*V1, ("connected", 4096, "leaky"), ("connected", 2 * 13)],
        yolo_v1_paper(3, features=4), (64, 128), 16,
    ),
    "yolo_v1_tiny": (V1_TINY, yolo_v1_tiny(3, features=2), (64, 128), 8),
    "yolo_v2": (V2, YOLOv2(3, features=2), (64, 96), 16),
    "yolo_v2_tiny": (V2_TINY, TinyYOLO(3, features=2), (64, 32), 8),
    "yolo_v3": (V3, YOLOv3(3, features=2, blocks=(1,) * 5), (64, 96), 16),
    "yolo_v3_tiny": (V3_TINY, YOLOv3Tiny(3, features=2), (64, 96), 8),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n == "yolo_v2" else pytest.mark.slow) for n in CASES],
)
def test_outputs_are_those_of_darknets_configuration_with_its_file(name, tmp_path):
    sections, model, (height, width), divisor = CASES[name]
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 1, (2, height, width, 3)).astype(np.float32)
    expected, values = interpreted(sections, images, divisor, rng)
    header = struct.pack("<iiiq", 0, 2, 0, 12_800)
    (tmp_path / "a.weights").write_bytes(header + values.tobytes())
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    variables, found = read_darknet(tmp_path / "a.weights", shapes)
    assert found == Header((0, 2, 0), 12_800)
    outputs = jax.tree.leaves(jax.jit(model.apply)(variables, images))
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected, strict=True):
        if name.startswith(
            "yolo_v1"
        ):  # darknet has all classes first, then confidences, then boxes
            boxes = model.boxes
            parts = np.split(theirs, [2 * 3, 2 * (3 + boxes)], axis=1)
            theirs = np.concatenate([part.reshape(2, 2, -1) for part in parts], axis=-1)
        size = np.abs(theirs).max()
        np.testing.assert_allclose(np.ravel(ours) / size, np.ravel(theirs) / size, atol=2e-5)
    write_darknet(tmp_path / "b.weights", variables, seen=12_800)
    assert (tmp_path / "b.weights").read_bytes() == (tmp_path / "a.weights").read_bytes()


def test_reorg_is_darknets_loop():
    x = np.arange(2 * 8 * 4 * 6, dtype=np.float32).reshape(2, 8, 4, 6)
    ours = reorg(jnp.asarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_array_equal(ours, _reorg_loop(x).transpose(0, 2, 3, 1))
    with pytest.raises(InputError, match="even sides"):
        reorg(jnp.zeros((1, 3, 4, 4)))


def test_sizes_that_do_not_fit_the_strides_are_refused():
    for model, stride in ((YOLOv3Tiny(3), 32), (yolo_v1_tiny(3), 64)):
        with pytest.raises(InputError, match=f"multiples of {stride}"):
            jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 416, 400, 3)))
