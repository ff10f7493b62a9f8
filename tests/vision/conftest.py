"""What tests of models share: drawn parameters, a step that moves them all, PyTorch's logits."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from nnlab import kernels
from nnlab.files.borrowing import Names, borrow
from nnlab.optim import adder_recipe
from nnlab.training import State, train_step
from nnlab.vision.inception import Outputs

# What takes time is to compile, not to run.
_quick_jit = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)


def _drawn(shapes: Any) -> Any:
    rng = np.random.default_rng(0)

    def leaf(path, shape):
        kind, fan_in = path[-1].key, np.prod(shape.shape[-4:-1])  # groups stand in front
        if kind in ("kernel", "adder_kernel"):
            values = rng.normal(size=shape.shape) * (np.sqrt(2 / fan_in) if kind == "kernel" else 1)
        else:
            values = rng.uniform(0.5, 1.5, shape.shape) - (kind == "bias")
        return np.asarray(values, shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def _assert_a_step_moves_everything(
    network: Any,
    shape: tuple[int, ...],
    optimizer: optax.GradientTransformation | None = None,
    *,
    spared: Callable[[list[str]], bool] = lambda names: False,
    **options: Any,
) -> None:
    # Without decay, so that only a gradient moves a parameter.
    optimizer = optimizer or adder_recipe(10, weight_decay=0.0)
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    before = _drawn(jax.eval_shape(network.init, jax.random.key(0), images))
    params, stats = before["params"], before.get("batch_stats", {})
    zero: Any = np.int32(0)
    state = State(zero, params, stats, optimizer.init(params), jax.random.key(0))
    step = _quick_jit(train_step(network, optimizer, **options))
    after, metrics = step(state, (images, np.arange(len(images), dtype=np.int32) % 4))
    assert np.isfinite(metrics["loss"]) and metrics["nonfinite"] == -1
    for old_tree, new_tree in ((params, after.params), (stats, after.batch_stats)):
        leaves = jax.tree_util.tree_leaves_with_path(old_tree)
        for (path, old), new in zip(leaves, jax.tree.leaves(new_tree), strict=True):
            assert np.isfinite(new).all(), path
            assert (old != new).any() or spared([key.key for key in path]), path


@functools.cache
def _full_size(model: Any, images: Any, arithmetic: Any, auxiliary: bool) -> Any:
    options = {"arithmetic": arithmetic, "first": arithmetic, "classifier": arithmetic}
    network = model(**options, auxiliary=auxiliary)
    return network, jax.eval_shape(network.init, jax.random.key(0), images)


def _assert_outputs_with_heads(network: Any, variables: Any, images: Any, heads: int) -> Any:
    rngs = {"dropout": jax.random.key(1)}
    apply = functools.partial(network.apply, train=True, mutable=["batch_stats"], rngs=rngs)
    out, updates = jax.eval_shape(apply, variables, images)
    assert isinstance(out, Outputs) and len(out.auxiliary) == heads
    for logits in (out.logits, *out.auxiliary):
        assert logits.shape == (images.shape[0], network.classes) and logits.dtype == jnp.float32
    return updates["batch_stats"]


def _assert_intermediates(
    model: Any, shape: tuple[int, ...], expected: dict[str, tuple[int, ...]], variables: Any = None
) -> None:
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = variables or jax.eval_shape(model.init, jax.random.key(0), images)
    narrow = model.clone(dtype=jnp.bfloat16)
    apply = functools.partial(narrow.apply, mutable=["intermediates"])
    logits, updates = jax.eval_shape(apply, variables, images)
    assert logits.shape == (shape[0], model.classes) and logits.dtype == jnp.float32
    named = {name: value for name, (value,) in updates["intermediates"].items()}
    assert {name: value.shape for name, value in named.items()} == expected
    assert {value.dtype for value in named.values()} == {jnp.dtype("bfloat16")}


def _randomised(network: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for name, leaf in network.state_dict().items():
        if leaf.ndim > 1:
            torch.nn.init.kaiming_normal_(leaf)
        elif name.endswith(("bias", "running_mean")):
            leaf.uniform_(-0.2, 0.2)
        elif name.endswith(("weight", "running_var")):
            leaf.uniform_(0.5, 1.5)
    return network.eval()


class _Adder2d(torch.nn.Module):
    """AdderNet's layer, by its definition."""

    def __init__(self, inputs, features, window, stride=1, padding=0):
        super().__init__()
        self.adder = torch.nn.Parameter(torch.randn(features, inputs, window, window))
        self.window, self.sides = (window, stride), (padding,) * 4

    def forward(self, x):
        x = torch.nn.functional.pad(x, self.sides)
        x = x.unfold(2, *self.window).unfold(3, *self.window)  # [n, in, height, width, kh, kw]
        return -(x[:, None] - self.adder[:, :, None, None]).abs().sum((2, 5, 6))


def _normalised(network: torch.nn.Module, images: np.ndarray) -> torch.nn.Module:
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.uniform_(layer.bias, -0.2, 0.2)
    with torch.no_grad():
        network.train()(torch.from_numpy(images).permute(0, 3, 1, 2))
    return network.eval()


def _assert_same_outputs(ours: Any, theirs: Any, images: np.ndarray) -> None:
    with torch.no_grad():
        outputs = theirs(torch.from_numpy(images).permute(0, 3, 1, 2))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for logits, expected in zip(jax.tree.leaves(ours(images)), outputs, strict=True):
        expected = expected.numpy()
        assert np.abs(expected[0] - expected[1]).max() > 0.1
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def _assert_borrowed_logits(
    model: Any,
    names: Names,
    theirs: torch.nn.Module,
    images: np.ndarray,
    *,
    shapes: Any = None,
    **options: Any,
) -> Any:
    with kernels.use("cpu"):
        shapes = shapes or jax.eval_shape(model.init, jax.random.key(0), images)
        arrays = {name: array.numpy() for name, array in theirs.state_dict().items()}
        borrowed = borrow(shapes, arrays, names)
        run = _quick_jit(functools.partial(model.apply, **options))
        _assert_same_outputs(functools.partial(run, borrowed), theirs, images)
    return borrowed


@pytest.fixture(scope="session")
def quick_jit():
    """`jax.jit` with a compiler that hardly optimises."""
    return _quick_jit


@pytest.fixture(scope="session")
def drawn():
    """`drawn(shapes)`: parameters and statistics of a tree of shapes, none of them the initial one.

    Kernels are of He's size and adder kernels N(0, 1), as published (with smaller ones all filters
    are alike), the rest from 1/2 to 3/2, biases from -1/2 to 1/2: normalisation takes away a shift
    of its inputs, and only where some units are off do biases matter.
    """
    return _drawn


@pytest.fixture(scope="session")
def assert_a_step_moves_everything():
    """`assert_…(network, shape, optimizer=adder_recipe(10, weight_decay=0), spared=, **options)`.

    A training step on images of that shape from `drawn` parameters leaves a finite loss and finite
    leaves, and changes every parameter and statistic but for those where `spared(names on the path
    to the leaf)`. The options are those of `train_step`; the labels are 0 to 3.
    """
    return _assert_a_step_moves_everything


@pytest.fixture(scope="session")
def full_size():
    """`full_size(model, images, arithmetic, auxiliary)`: a network, and its variables' shapes.

    All its layers have that arithmetic. Every such network is traced once.
    """
    return _full_size


@pytest.fixture(scope="session")
def assert_outputs_with_heads():
    """`assert_outputs_with_heads(network, variables, images, heads)` -> statistics' shapes.

    Of a training call, whose outputs are float32 logits of the network and of that many heads.
    """
    return _assert_outputs_with_heads


@pytest.fixture(scope="session")
def assert_intermediates():
    """`assert_intermediates(model, shape of images, {name: shape}, variables=None)`, in bfloat16.

    A float32 model's variables, those of `model.init` unless given, serve it in bfloat16: its named
    intermediates are these and no others, all in bfloat16, and its logits are in float32.
    """
    return _assert_intermediates


@pytest.fixture(scope="session")
def randomised():
    """`randomised(network)`: a PyTorch network in evaluation mode with everything drawn.

    Weights are of He's size; scales and variances of BatchNorm from 1/2 to 3/2, means and all
    biases from -0.2 to 0.2.
    """
    return _randomised


@pytest.fixture(scope="session")
def adder2d():
    """`adder2d(inputs, features, window, stride, padding)` of AdderNet's code, in PyTorch."""
    return _Adder2d


@pytest.fixture(scope="session")
def normalised():
    """`normalised(network, images)`: a PyTorch network in evaluation mode, with their statistics.

    Distances are far from 0, and drawn statistics would leave nothing of them after a ReLU.
    """
    return _normalised


@pytest.fixture(scope="session")
def assert_same_outputs():
    """`assert_same_outputs(ours, theirs, images)`: within 1e-4, of outputs that depend on images.

    Both are functions of images, here [batch, height, width, channels] and there, in PyTorch,
    [batch, channels, height, width], and give logits or several of them.
    """
    return _assert_same_outputs


@pytest.fixture(scope="session")
def assert_borrowed_logits():
    """`assert_…(model, names, theirs, images, shapes=None, **options)` -> borrowed variables.

    With the weights of a PyTorch network by a table of names, `model.apply` with those options
    gives its outputs within 1e-4. The shapes of the variables are those for these images unless
    given.
    """
    return _assert_borrowed_logits
