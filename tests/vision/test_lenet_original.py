"""LeNet-5 of 1998 against the paper's numbers and a plain loop over its connections."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from nnlab.arithmetics import ADDER
from nnlab.errors import InputError
from nnlab.vision.lenet_original import (
    OriginalLeNet5,
    Subsampling,
    codes,
    full_lenet5,
)

# Table 1 of the paper: a row a map of S2, a column a map of C3.
TABLE = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""
EVERYTHING_ADDER: Any = {"arithmetic": ADDER, "first": ADDER, "classifier": ADDER, "norm": True}


def variables(model: OriginalLeNet5) -> Any:
    return jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)
    )


def sizes(params: Any) -> dict[str, int]:
    return {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in params.items()}


def test_parameters_of_the_layers():
    found = sizes(variables(OriginalLeNet5())["params"])
    assert found == {
        "c1": 156,
        "s2": 12,
        **{"c3_three": 6 * 76, "c3_four": 9 * 101, "c3_six": 151},
        "s4": 32,
        "c5": 48_120,
        "f6": 10_164,
    }
    assert found["c3_three"] + found["c3_four"] + found["c3_six"] == 1_516
    assert sum(found.values()) == 60_000
    found = sizes(variables(full_lenet5())["params"])
    assert found == {"c1": 156, "c3": 2_416, "c5": 48_120, "f6": 10_164, "output": 850}
    assert sum(found.values()) == 61_706


def squash(x):
    return 1.7159 * np.tanh(2 / 3 * x)


def brute_force(params: Any, image: np.ndarray) -> np.ndarray:
    """Logits of one image, map by map in float64, of filters written out by the paper's table."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def convolution(maps, kernels, biases):  # kernels [out, in, 5, 5]
        both = zip(kernels, biases, strict=True)
        return [sum(map(valid, maps, kernel)) + bias for kernel, bias in both]

    def valid(image, kernel):
        return correlate(image, kernel, "valid")

    def subsampling(maps, layer):
        both = zip(maps, layer["coefficient"], layer["bias"], strict=True)
        sums = (
            (m[::2, ::2] + m[1::2, ::2] + m[::2, 1::2] + m[1::2, 1::2], c, b) for m, c, b in both
        )
        return [squash(c * total + b) for total, c, b in sums]

    layer = params["c1"]
    maps = convolution([image], layer["kernel"].transpose(3, 2, 0, 1), layer["bias"])
    maps = subsampling([squash(m) for m in maps], params["s2"])

    three, four = (params[f"c3_{name}"]["Conv_0"] for name in ("three", "four"))
    kernels = [*three["kernel"][..., 0], *four["kernel"][..., 0]]  # [5, 5, inputs]
    biases = [*three["bias"].ravel(), *four["bias"].ravel()]
    kernels += [params["c3_six"]["kernel"][..., 0]]
    biases += [*params["c3_six"]["bias"]]
    rows = TABLE.split()
    after = []
    for column, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        seen = [number for number in range(6) if rows[number][column] == "X"]
        # Around the circle of maps, where they follow one another without a gap.
        starts = [i for i in seen if (i - 1) % 6 not in seen]
        if len(starts) == 1:
            seen = [(starts[0] + i) % 6 for i in range(len(seen))]
        after += convolution([maps[i] for i in seen], [kernel.transpose(2, 0, 1)], [bias])
    maps = subsampling([squash(m) for m in after], params["s4"])

    layer = params["c5"]
    maps = convolution(maps, layer["kernel"].transpose(3, 2, 0, 1), layer["bias"])
    vector = squash(np.ravel(maps)) @ params["f6"]["kernel"] + params["f6"]["bias"]
    distances = squash(vector)[:, None] - codes(10).T
    return -(distances**2).sum(axis=0)


@pytest.fixture(scope="module")
def run(quick_jit):
    return quick_jit(OriginalLeNet5().apply)


def test_logits_are_those_of_the_paper_s_equations(run):
    model, rng = OriginalLeNet5(), np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.uniform(-0.2, 0.2, leaf.shape).astype(leaf.dtype),
        variables(model)["params"],
    )
    images = np.random.default_rng(1).uniform(-0.1, 1.175, (2, 32, 32, 1)).astype(np.float32)
    logits = run({"params": params}, images)
    expected = np.stack([brute_force(params, image[..., 0].astype(float)) for image in images])
    # Each of 84 squares of up to 2.72 is off by 2 · 2.72 times the error of a unit, which is that
    # of sums of at most 400 products below 0.5, each of them rounded to 2^-25 of its size, through
    # slopes of at most 1.15 and 7 layers: below 1e-5. Twice 84 rounded sums of at most 620.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=84 * 2 * 2.72 * 1e-5)
    assert expected.std() > 5


def test_codes_are_bitmaps_of_digits():
    ten = codes(10)
    assert ten.shape == (10, 84) and ten.dtype == np.float32 and set(ten.ravel()) == {-1.0, 1.0}
    one = ["".join(" #"[int(pixel > 0)] for pixel in row) for row in ten[1].reshape(12, 7)]
    assert one[0] == "   #   " and one[2] == " ###   " and one[11] == "######  "[:7]
    eight = ten[8].reshape(12, 7)
    np.testing.assert_array_equal(eight, eight[:, ::-1])  # symmetric, as a zero is
    different = (ten[:, None] != ten).sum(axis=-1)[~np.eye(10, dtype=bool)]
    assert different.min() == 8  # 5 and 6


@pytest.mark.parametrize("classes", [2, 11, 84])
def test_other_codes_differ_in_half_of_their_bits(classes):
    found = codes(classes)
    np.testing.assert_array_equal(found @ found.T, 84 * np.eye(classes))


def test_the_nearest_code_wins(run):
    """Where F6 has no weights, its biases are its units before the activation."""
    model = OriginalLeNet5()
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), variables(model)["params"])
    params["f6"]["bias"] = codes(10)[3]  # f(1) is 1, by the choice of 1.7159
    logits, _ = run({"params": params}, np.zeros((2, 32, 32, 1), np.float32))
    # A bit that differs costs 4; 1.7159 tanh(2/3) = 1.00006, of which 84 squares remain.
    expected = -4.0 * (codes(10) != codes(10)[3]).sum(axis=1)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=84 * 4 * 1e-4)


@pytest.mark.parametrize("full", [False, True])
def test_intermediates_in_bfloat16(full, assert_intermediates):
    expected = {"stage1": (2, 14, 14, 6), "stage2": (2, 5, 5, 16), "features": (2, 84)}
    assert_intermediates(OriginalLeNet5(full=full, classes=7), (2, 32, 32, 1), expected)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, EVERYTHING_ADDER], ids=["float", "adder"])
@pytest.mark.parametrize("full", [False, True], ids=["sparse", "full"])
def test_a_step_reaches_every_parameter(full, options, assert_a_step_moves_everything):
    assert_a_step_moves_everything(OriginalLeNet5(full=full, **options), (4, 32, 32, 1))


def test_subsampling_begins_as_the_mean(quick_jit):
    images = np.random.default_rng(0).normal(size=(2, 6, 4, 3)).astype(np.float32)
    means = images.reshape(2, 3, 2, 2, 2, 3).mean(axis=(2, 4))
    y, made = quick_jit(Subsampling(None).init_with_output)(jax.random.key(0), images)
    assert sizes(made["params"]) == {"coefficient": 3, "bias": 3}
    np.testing.assert_allclose(y, means, rtol=0, atol=1e-6)


def test_bad_arguments():
    with pytest.raises(InputError):
        jax.eval_shape(OriginalLeNet5().init, jax.random.key(0), np.ones((1, 28, 28, 1)))
    for classes in (0, 85):
        with pytest.raises(InputError):
            variables(OriginalLeNet5(classes=classes))
