"""Weights from PyTorch: the same logits there and here, and what does not fit is named."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from nnlab.arithmetics import ADDER, BINARY, FLOAT, Arithmetic
from nnlab.errors import InputError
from nnlab.files import read_state_dict
from nnlab.files.borrowing import Flattened, borrow, lend
from nnlab.layers.grouped import GroupedConv
from nnlab.layers.normalization import batch_norm


class Net(nn.Module):
    """A grouped convolution with bias, BatchNorm, a plain convolution, and two dense layers."""

    arithmetic: Arithmetic = FLOAT

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        conv, dense = self.arithmetic.conv, FLOAT.dense
        x = GroupedConv(conv, 2, 6, (3, 3), padding=1, use_bias=True, name="conv1")(x)
        x = nn.relu(batch_norm(train, name="bn1")(x))
        x = nn.relu(conv(5, (2, 3), strides=2, padding="VALID", name="conv2")(x))
        x = nn.relu(dense(7, use_bias=True, name="fc1")(x.reshape(len(x), -1)))
        return dense(3, name="fc2")(x)


NAMES = {
    **{"conv1": "features.0", "bn1": "features.1", "conv2": "features.3"},
    **{"fc1": Flattened("fc.0", 5, 3, 2), "fc2": "fc.2"},
}
IMAGES = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)


class TorchNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        norm = torch.nn.BatchNorm2d(6)
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(4, 6, 3, padding=1, groups=2),
            norm,
            torch.nn.ReLU(),
            torch.nn.Conv2d(6, 5, (2, 3), stride=2, bias=False),
        )
        self.fc = torch.nn.Sequential(
            torch.nn.Linear(5 * 3 * 2, 7), torch.nn.ReLU(), torch.nn.Linear(7, 3, bias=False)
        )
        for layer in (self.features[0], self.features[3], self.fc[0], self.fc[2]):
            torch.nn.init.normal_(layer.get_parameter("weight"), std=0.3)
        for values in (*norm.parameters(), *norm.buffers()):
            if values.is_floating_point():
                torch.nn.init.uniform_(values.data, 0.5, 2.0)

    def forward(self, x):
        return self.fc(torch.relu(self.features(x)).flatten(1))


@functools.cache
def variables(arithmetic=FLOAT):
    return jax.eval_shape(Net(arithmetic).init, jax.random.key(0), IMAGES)


@pytest.fixture(scope="module")
def there():
    return TorchNet().eval()


@pytest.fixture
def state_dict(there):
    return {name: tensor.numpy() for name, tensor in there.state_dict().items()}


def refusal(state_dict, names=NAMES, arithmetic=FLOAT):
    with pytest.raises(InputError) as caught:
        borrow(variables(arithmetic), state_dict, names)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def test_logits_are_those_of_pytorch(there, tmp_path):
    torch.save(there.state_dict(), tmp_path / "net.pt")
    borrowed = borrow(variables(), read_state_dict(tmp_path / "net.pt"), NAMES)
    logits = jax.jit(Net().apply)(borrowed, IMAGES)
    with torch.no_grad():
        expected = there(torch.from_numpy(IMAGES).permute(0, 3, 1, 2)).numpy()
    assert 0.5 < np.abs(expected).max() < 10
    # Four sums in float32 of at most 36 products in another order: 4 · 36 · 10 · 2^-24 at most.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_values_by_hand(state_dict):
    borrowed = borrow(variables(), state_dict, NAMES)
    (grouped,) = borrowed["params"]["conv1"].values()
    # Output 4 is the second of the second group, whose inputs are 2 and 3.
    there = state_dict["features.0.weight"]
    np.testing.assert_array_equal(grouped["kernel"][1, :, :, 1, 1], there[4, 1])
    assert grouped["bias"][1, 2] == state_dict["features.0.bias"][5]
    assert borrowed["batch_stats"]["bn1"]["var"][3] == state_dict["features.1.running_var"][3]
    # Row 1, column 1, channel 4 is input (1 · 2 + 1) · 5 + 4 here and (4 · 3 + 1) · 2 + 1 there.
    kernel = borrowed["params"]["fc1"]["kernel"]
    np.testing.assert_array_equal(kernel[19], state_dict["fc.0.weight"][:, 27])


def test_arrays_have_the_dtypes_of_the_model(state_dict):
    wide = {name: np.asarray(array, np.float64) for name, array in state_dict.items()}
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, jnp.bfloat16), variables())
    borrowed = borrow(shapes, wide, NAMES)
    assert {leaf.dtype for leaf in jax.tree.leaves(borrowed)} == {jnp.dtype(jnp.bfloat16)}


def test_what_is_missing_or_left_over_is_named(state_dict):
    less = {name: array for name, array in state_dict.items() if name != "features.1.running_mean"}
    assert refusal(less).endswith("the model, which needs features.1.running_mean.")
    more = state_dict | {"extra.weight": IMAGES}
    assert refusal(more).endswith("the model, which has no extra.weight.")
    many = state_dict | {f"aux{i}.weight": IMAGES for i in range(5)}
    assert "aux0.weight, aux1.weight, aux2.weight …" in refusal(many)
    both = refusal(less | {"extra.weight": IMAGES})
    assert "needs features.1.running_mean and has no extra.weight." in both
    unnamed = {layer: name for layer, name in NAMES.items() if layer != "fc2"}
    assert "no entry for fc2/kernel" in refusal(state_dict, unnamed)
    twice = NAMES | {"bn1": "features.0"}
    assert "features.0.running_mean" in refusal(state_dict, twice)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        (
            "features.0.weight",
            (6, 2, 3, 5),
            "here [2, 3, 5, 2, 3], which does not fit [2, 3, 3, 2, 3]",
        ),
        ("features.0.weight", (5, 2, 3, 3), "[5, 2, 3, 3]"),
        ("features.0.bias", (5,), "[5], which does not fit [2, 3]"),
        ("features.3.weight", (5, 6, 3, 2), "here [3, 2, 6, 5], which does not fit [2, 3, 6, 5]"),
        ("features.1.weight", (7,), "[7], which does not fit [6]"),
        ("fc.0.weight", (7, 31), "[7, 31], expected inputs from 5 channels of 3 by 2"),
        ("fc.2.weight", (7, 3), "in the order here [3, 7], which does not fit [7, 3]"),
    ],
)
def test_another_shape_is_named(name, shape, words, state_dict):
    sentence = refusal(state_dict | {name: np.zeros(shape, np.float32)})
    assert sentence.startswith(f"{name} has shape") and words in sentence


def test_an_image_of_another_size_is_not_taken_for_the_right_one(state_dict):
    """Its inputs are as many as the layer has, but in an order that would not be known."""
    names = NAMES | {"fc1": Flattened("fc.0", 5, 3, 3)}
    assert "expected inputs from 5 channels of 3 by 3" in refusal(state_dict, names)


def test_weights_of_products_are_not_those_of_distances_but_may_start_them(state_dict):
    named = "needs features.0.adder, features.3.adder and has no features.0.weight, features.3"
    assert named in refusal(state_dict, arithmetic=ADDER)
    for arithmetic, kind in ((ADDER, "adder_kernel"), (BINARY, "binary_kernel")):
        started = borrow(variables(arithmetic), state_dict, NAMES, start=True)
        there = state_dict["features.3.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(started["params"]["conv2"][kind], there)


def test_what_is_lent_is_what_was_borrowed(state_dict):
    lent = lend(borrow(variables(), state_dict, NAMES), NAMES)
    assert lent.keys() == state_dict.keys() - {"features.1.num_batches_tracked"}
    for name, array in lent.items():
        np.testing.assert_array_equal(array, state_dict[name])
        assert array.flags.c_contiguous  # safetensors would write others as if they were
