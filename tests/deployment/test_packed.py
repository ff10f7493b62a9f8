"""Packed networks against those that they come from: numbers, bytes, and what cannot be packed."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import BITNET, BITNET_B1, TERNARY, bitnet
from nnlab.costs import stored_bytes
from nnlab.deployment import file_sizes, pack
from nnlab.errors import InputError
from nnlab.layers import BitNetDense
from nnlab.models import GPT2, Llama, MatMulFreeLM, load_model, save_model
from nnlab.ops.bitnet import bitnet_conv
from nnlab.ops.front import over_rows
from nnlab.ops.packed_ternary import pack_ternary, ternary_dense_packed
from nnlab.sequences.generation import generate

SIZES: Any = dict(symbols=11, features=32, layers=1)
SYMBOLS: Any = np.random.default_rng(0).integers(0, 11, (2, 5)).astype(np.int32)
ONE = jax.ShapeDtypeStruct((1, 1), jnp.int32)


def variables_of(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), ONE)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), shapes)


MODELS = {
    "Llama": Llama(**SIZES, heads=2, hidden=48, arithmetic=BITNET),
    "signs": GPT2(**SIZES, heads=2, positions=9, use_bias=True, arithmetic=BITNET_B1),
    "floats": Llama(**SIZES, heads=2, hidden=45, arithmetic=TERNARY),
    "norms outside": Llama(**SIZES, heads=2, sub_norms=True, arithmetic=bitnet(norm=False)),
    "head too": MatMulFreeLM(**SIZES, hidden=48, arithmetic=BITNET, classifier=BITNET),
}


@pytest.mark.parametrize(
    "name", [n if n == "Llama" else pytest.param(n, marks=pytest.mark.slow) for n in MODELS]
)
def test_the_file_gives_what_training_computes_and_has_the_size_of_the_summary(name, tmp_path):
    model = MODELS[name]
    variables = variables_of(model)
    expected = jax.jit(model.apply)(variables, SYMBOLS)
    ways: Any = ((4, jnp.float32), (5, jnp.bfloat16))[: 1 + (name != "Llama")]
    for per_byte, rest in ways:
        packed = pack(model, variables, per_byte=per_byte, rest=rest)
        path = tmp_path / f"{per_byte}.safetensors"
        save_model(path, packed.model, packed.variables, ONE)
        loaded = load_model(path)
        np.testing.assert_array_equal(
            jax.jit(loaded.model.apply)(loaded.variables, SYMBOLS),
            expected
            if rest == jnp.float32
            else jax.jit(packed.model.apply)(packed.variables, SYMBOLS),
        )
        *parts, whole = file_sizes(path)
        assert whole["bytes"] == path.stat().st_size == sum(part["bytes"] for part in parts)
        at_rest = stored_bytes(packed.model.apply, packed.variables, ONE)
        assert sum(part["bytes"] for part in parts[:-1]) == at_rest
        if name == "Llama" and per_byte == 4:  # and that of the network in training: 2 bits
            assert at_rest == stored_bytes(model.apply, variables, ONE)


def test_a_layer_is_that_of_training_to_the_bit():
    x = np.random.default_rng(0).normal(size=(3, 4, 45)).astype(np.float32)
    layer: Any = BitNetDense(20, norm=False)
    variables = layer.init(jax.random.key(0), x)
    weights = pack_ternary(*layer.export(variables))
    trained = jax.jit(lambda x, w: over_rows(bitnet_conv, x, w))(x, variables["params"]["kernel"])
    np.testing.assert_array_equal(jax.jit(ternary_dense_packed)(x, weights), trained)


@pytest.mark.slow
def test_a_packed_decoder_writes_the_same_text_with_its_cache():
    model = MODELS["Llama"]
    variables = variables_of(model)
    packed = pack(model, variables)
    for each in (SYMBOLS, SYMBOLS[:1]):  # one text has a cache of its own program
        one, other = (
            generate(network, tree, jax.random.key(2), jnp.asarray(each), 7)
            for network, tree in ((model, variables), (packed.model, packed.variables))
        )
        np.testing.assert_array_equal(one, other)


class Own(nn.Module):
    """A network whose ternary layer no field names."""

    @nn.compact
    def __call__(self, x):
        return BitNetDense(3, name="inner")(x)


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (Llama(**SIZES, heads=2), {}, "this Llama has no ternary dense layer"),
        (Own(), {"inputs": jnp.ones((1, 4))}, "such as inner, that no arithmetic of its fields"),
        (
            BITNET.conv(3, 3, name="c"),
            {"inputs": jnp.ones((1, 4, 4, 2))},
            "is a convolution, and only dense layers",
        ),
        (MODELS["Llama"], {"per_byte": 3}, "packs 4 or 5 weights in a byte, not 3"),
        (MODELS["Llama"], {"rest": jnp.float16}, "float32 or bfloat16, not float16"),
    ],
)
def test_what_cannot_be_packed(model, options, said):
    inputs = options.get("inputs", jnp.zeros((1, 1), jnp.int32))
    variables = jax.eval_shape(model.init, jax.random.key(0), inputs)
    variables = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), variables)
    with pytest.raises(InputError, match=said):
        pack(model, variables, **options)


def test_weights_that_are_not_finite_are_named():
    variables = variables_of(MODELS["Llama"])
    kernel = variables["params"]["layer_0"]["mixer"]["key"]["kernel"]
    variables["params"]["layer_0"]["mixer"]["key"]["kernel"] = kernel.at[0, 0].set(jnp.nan)
    with pytest.raises(InputError, match="layer_0/mixer/key has weights that are not finite"):
        pack(MODELS["Llama"], variables)
