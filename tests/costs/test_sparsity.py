"""Counts of pruned layers by hand, and closed forms against samples and against integrals."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.costs import (
    count,
    expected_mass_removed,
    mass_removed,
    sparse_counts,
)
from nnlab.errors import InputError
from nnlab.models import SmallCNN

IMAGE: Any = np.zeros((1, 8, 8, 1), np.float32)


def network(arithmetic, widths=(2, 3, 4)):
    model = SmallCNN(5, arithmetic, widths=widths)
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGE)
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), shapes)


def test_dense_counts_are_those_of_the_traced_program():
    model, variables = network(FLOAT)
    layers = sparse_counts(model.apply, variables, IMAGE)
    # 64 positions of 9·1·2 and 9·2·3, 16 of 9·3·4, one of 2·2·4·5
    terms = {"Conv_0": 1152, "Conv_1": 64 * 54, "Conv_2": 16 * 108, "Dense_0": 80}
    assert {name: layer.terms for name, layer in layers.items()} == terms
    for layer in layers.values():
        assert layer.zeros == 0
        assert layer.multiplications == layer.additions == layer.terms
        assert layer.dense_bytes == 4 * layer.weights
    kernels = [layers[f"Conv_{i}"].multiplications for i in range(3)]
    alone = sum(kernels) + layers["Dense_0"].multiplications
    assert 0 <= count(model.apply, variables, IMAGE).totals()["multiplications"] - alone < 1000


@pytest.mark.parametrize("arithmetic", [FLOAT, ADDER])
def test_a_zero_weight_is_nothing_in_a_convolution_and_one_addition_in_an_adder(arithmetic):
    model, variables = network(arithmetic)
    name, layer = ("kernel", "Conv_1") if arithmetic is FLOAT else ("adder_kernel", "AdderConv_0")
    params: Any = variables["params"]
    kernel = params[layer][name]
    left = np.where(np.arange(kernel.size) < 14, 0, kernel.ravel())
    params[layer][name] = left.reshape(kernel.shape)
    got = sparse_counts(model.apply, variables, IMAGE)[layer]
    # 40 of 54 weights are left, 64 positions
    assert (got.weights, got.zeros, got.terms) == (54, 14, 3456)
    if arithmetic is FLOAT:
        assert (got.multiplications, got.additions) == (2560, 2560)
    else:
        assert (got.multiplications, got.additions) == (0, 2 * 2560 + 896)
    assert (got.dense_bytes, got.bitmask_bytes) == (216, 160 + 7)


def test_layers_of_other_weights_are_left_out():
    model, variables = network(BINARY)
    assert set(sparse_counts(model.apply, variables, IMAGE)) == {"Conv_0", "Dense_0"}
    norm = nn.LayerNorm()
    with pytest.raises(InputError, match="no kernel"):
        params = {"scale": jnp.ones(1), "bias": jnp.ones(1)}
        sparse_counts(norm.apply, {"params": params}, IMAGE)


FAMILIES = {"gaussian": stats.norm, "laplace": stats.laplace}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_closed_forms_against_integrals(family, sparsity):
    distribution = FAMILIES[family]()
    end = distribution.ppf((1 + sparsity) / 2)
    got = expected_mass_removed(family, sparsity)
    for power, part in ((1, got.absolute), (2, got.squared)):

        def moment(end, power=power):
            return integrate.quad(lambda w: w**power * distribution.pdf(w), 0, end)[0]

        # quad's own bound on its error is 1.5e-8
        assert part == pytest.approx(moment(end) / moment(np.inf), abs=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_closed_forms_against_samples(family):
    weights = FAMILIES[family].rvs(scale=3.0, size=(100, 2000), random_state=0)
    for sparsity in (0.5, 0.9):
        got, expected = mass_removed(weights, sparsity), expected_mass_removed(family, sparsity)
        # A part of n weights has a standard error of no more than a few / sqrt(n): 0.0022 each.
        np.testing.assert_allclose(got, expected, atol=0.01)


def test_a_laplacian_loses_less_of_both():
    for sparsity in np.linspace(0.05, 0.95, 10):
        laplace, gaussian = (expected_mass_removed(f, sparsity) for f in ("laplace", "gaussian"))
        assert laplace.absolute < gaussian.absolute and laplace.squared < gaussian.squared


def test_golden():
    # of 1 2 3 4 the half is 1 2: 3 of 10, and 5 of 30
    assert mass_removed([[-4.0, 1.0], [2.0, -3.0]], 0.5) == pytest.approx((0.3, 5 / 30))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: mass_removed([1.0], 1.5), "sparsity .* not 1.5"),
        (lambda: mass_removed([0.0, 0.0], 0.5), "2 weights, 2 of them finite and 0 not 0"),
        (lambda: mass_removed([np.nan], 0.5), "1 weights, 0 of them finite"),
        (lambda: expected_mass_removed("cauchy", 0.5), "family .* not cauchy"),  # pyright: ignore[reportArgumentType]
        (lambda: expected_mass_removed("laplace", -1), "sparsity .* not -1"),
    ],
)
def test_bad_input_is_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()
