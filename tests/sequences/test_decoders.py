"""What GPT-2, Llama and the MatMul-free network promise alike, in float and in adders."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import ADDER, FLOAT
from nnlab.errors import InputError
from nnlab.models import GPT2, Llama, MatMulFreeLM, bitnet_2b4t, nano_gpt
from nnlab.sequences.generation import decode, generate, prefill, read
from nnlab.training import cross_entropy

NETWORKS: dict[str, Any] = {
    "gpt2": functools.partial(nano_gpt, features=16, layers=1),
    "llama": functools.partial(
        Llama, 65, features=16, layers=1, heads=4, hidden=24, key_heads=2, sub_norms=True
    ),
    "matmul_free": functools.partial(MatMulFreeLM, 65, features=16, layers=2),
}


def cases(*fast):
    """Every network in float and in adders; in the fast tests these in float."""
    return [
        pytest.param(name, a, marks=[] if a is FLOAT and name in fast else pytest.mark.slow)
        for name in NETWORKS
        for a in (FLOAT, ADDER)
    ]


SYMBOLS: Any = np.random.default_rng(0).integers(0, 65, (2, 9)).astype(np.int32)
KEY = jax.random.key(1)


@functools.cache
def network(name, arithmetic):
    """The network, its variables as they start, its compiled call and its logits of `SYMBOLS`."""
    model = NETWORKS[name](arithmetic=arithmetic)
    variables = jax.jit(model.init)(jax.random.key(0), SYMBOLS)
    assert variables.keys() == {"params"}
    apply = jax.jit(model.apply)
    return model, variables, apply, np.asarray(apply(variables, SYMBOLS))


def size(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(("name", "arithmetic"), cases("llama"))
def test_it_begins_by_knowing_nothing_and_looks_at_nothing_later(name, arithmetic):
    _, variables, apply, logits = network(name, arithmetic)
    loss = cross_entropy(jnp.asarray(logits), jnp.asarray(SYMBOLS)[:, ::-1])
    assert abs(float(loss) - math.log(65)) < 0.1
    other = SYMBOLS.copy()
    other[:, 5] = (other[:, 5] + 1) % 65
    changed = np.asarray(apply(variables, other))
    np.testing.assert_array_equal(changed[:, :5], logits[:, :5])
    assert np.all(np.any(changed[:, 5] != logits[:, 5], axis=-1))


@pytest.mark.parametrize(("name", "arithmetic"), cases("gpt2"))
def test_pieces_of_a_text_give_what_the_text_gives(name, arithmetic):
    """A prompt in two parts, the first of unequal lengths, then symbol by symbol in one loop."""
    model, variables, _, logits = network(name, arithmetic)
    lengths: Any = np.array([3, 2], np.int32)

    @jax.jit
    def pieces(variables):
        first = prefill(model, variables, SYMBOLS[:, :3], room=6, lengths=lengths)
        second = read(model, variables, first, jnp.stack([SYMBOLS[0, 3:5], SYMBOLS[1, 2:4]]))
        return first.logits, second.logits

    assert "f32[2,3,65]" not in str(jax.make_jaxpr(pieces)(variables))  # logits of all symbols
    first, second = pieces(variables)
    np.testing.assert_allclose(first, logits[[0, 1], [2, 1]], atol=2e-5)
    np.testing.assert_allclose(second, logits[[0, 1], [4, 3]], atol=2e-5)


@pytest.mark.parametrize(("name", "arithmetic"), cases())
def test_the_likeliest_symbols_are_those_of_the_whole_text(name, arithmetic):
    model, variables, apply, _ = network(name, arithmetic)
    sharp = jax.tree.map(lambda w: 4 * w, variables)  # or near ties decide
    found = jax.jit(lambda v: generate(model, v, KEY, SYMBOLS[:, :3], 6, top_k=1))(sharp)
    text = np.concatenate([SYMBOLS[:, :3], found], axis=1)
    np.testing.assert_array_equal(found, np.asarray(apply(sharp, text))[:, 2:-1].argmax(-1))


def test_a_cache_without_room():
    model, variables, _, _ = network("gpt2", FLOAT)
    with pytest.raises(InputError, match="GPT2 keeps what it has read in a cache; expected room="):
        jax.eval_shape(lambda v: prefill(model, v, SYMBOLS), variables)
    with pytest.raises(InputError, match="a text has 109 symbols, expected at most the 64"):
        jax.eval_shape(lambda v: prefill(model, v, SYMBOLS, room=100), variables)
    position = jax.jit(lambda v: prefill(model, v, SYMBOLS, room=2))(variables)
    with pytest.raises(InputError, match="the cache holds 9 of 11 symbols, expected room for 3"):
        decode(model, variables, KEY, position, 3)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (GPT2(layers=24, features=1024, heads=16), 354_823_168),
        (GPT2(layers=36, features=1280, heads=20), 774_030_080),
        (GPT2(layers=48, features=1600, heads=25), 1_557_611_200),
        (GPT2(use_bias=False), 124_337_664),
        (nano_gpt(layers=6, features=384, heads=6, positions=256), 10_745_088),
        (Llama(), 777_856_512),
        (Llama(sub_norms=True), 777_991_680),
        (Llama(features=2048, hidden=5460, heads=32), 1_338_935_296),
        (Llama(features=2048, hidden=5460, heads=32, sub_norms=True), 1_339_115_488),
        (Llama(features=3200, hidden=8640, heads=32, layers=26), 3_426_473_600),
        (Llama(features=3200, hidden=8640, heads=32, layers=26, sub_norms=True), 3_426_781_440),
        (Llama(features=3200, hidden=12_800, heads=32, layers=26), 4_464_809_600),
        (Llama(features=3200, hidden=12_800, heads=32, layers=26, sub_norms=True), 4_465_225_600),
        (bitnet_2b4t(tied=False), 2_741_155_840),
    ],
)
@pytest.mark.slow
def test_parameters_as_published(model, parameters):
    assert size(model) == parameters
