"""Bytes at rest of small programs, worked out by hand."""

import jax
import jax.numpy as jnp

from nnlab.arithmetics import BINARY
from nnlab.costs import stored_bytes
from nnlab.costs.storage import at_rest, bytes_by_leaf, kept_as_signs
from nnlab.models import resnet20
from nnlab.ops.binary import binary_weights, sign_ste
from nnlab.ops.straight_through import stored_in


def leaf(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


X = leaf(4, 10)


def test_a_leaf_used_only_through_its_sign_is_one_bit_a_weight():
    def layer(variables, x):
        return x @ sign_ste(variables["kernel"]) + variables["bias"]

    variables = {"kernel": leaf(10, 3), "bias": leaf(3)}
    assert stored_bytes(layer, variables, X) == 4 + 12  # 30 bits are 4 bytes; 3 float32


def test_dtype_counts_for_all_other_leaves():
    def layer(variables, x):
        return x.astype(jnp.bfloat16) @ variables["kernel"]

    variables = {
        "kernel": leaf(10, 3, dtype=jnp.bfloat16),
        "unused": leaf(5),
        "packed": leaf(7, dtype=jnp.uint8),
    }
    assert stored_bytes(layer, variables, X) == 60 + 20 + 7


def test_one_other_use_is_enough():
    def scaled(w, x):
        return x @ sign_ste(w) * jnp.abs(w).mean()

    assert stored_bytes(scaled, leaf(10, 3), X) == 120

    def returned(w, x):
        return x @ sign_ste(w), w

    assert stored_bytes(returned, leaf(10, 3), X) == 120


def test_the_straight_through_difference_is_no_use():
    assert stored_bytes(lambda w, x: x @ binary_weights(w), leaf(10, 3), X) == 4

    def other_difference(w, x):
        return x @ (sign_ste(w) + (w - jax.lax.stop_gradient(w).T))

    assert stored_bytes(other_difference, leaf(10, 10), X) == 400


def test_resnet_20():
    model, image = resnet20(arithmetic=BINARY), leaf(1, 32, 32, 3)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    # 272,484 parameters and 2 x 794 running statistics; of the kernels, all but the first (432)
    # and the classifier (640) are signs.
    signs = 272_484 - 2 * 794 - 432 - 640
    expected = 4 * (272_484 + 2 * 794) - 4 * signs + signs // 8
    assert stored_bytes(model.apply, variables, image) == expected


def test_signs_of_integers_are_not_weights_of_one_bit():
    int8 = leaf(10, 3, dtype=jnp.int8)
    assert stored_bytes(lambda w, x: x @ sign_ste(w), int8, X) == 30


def test_uses_are_followed_into_nested_programs():
    @jax.custom_vjp
    def quantised(w):
        return sign_ste(w.reshape(3, 10).T)

    quantised.defvjp(lambda w: (quantised(w), None), lambda _, g: (g,))

    @jax.jit
    def reshaped(w):
        return w.reshape(10, 3).astype(jnp.float32)

    def layer(w, x):
        y = jax.checkpoint(lambda w: x @ quantised(w))(w)
        y += jax.lax.cond(x[0, 0] > 0, lambda w: x @ sign_ste(w), lambda w: y, reshaped(w))
        return jax.lax.scan(lambda y, _: (y + sign_ste(w)[:1, :1], None), y, length=3)[0]

    assert stored_bytes(layer, leaf(10, 3), X) == 4


def test_stacked_layers_in_a_scan():
    def network(kernels, x):
        return jax.lax.scan(lambda x, w: (x @ sign_ste(w), None), x, kernels)[0]

    assert stored_bytes(network, leaf(6, 10, 10), X) == 75
    assert stored_bytes(jax.vmap(network, in_axes=(0, None)), leaf(2, 6, 10, 10), X) == 150


def test_a_carry_is_not_followed():
    def swapping(w, x):
        def body(carry, _):
            a, b = carry
            return (b, a), x @ sign_ste(a) + x @ b  # the second trip uses w as it is

        return jax.lax.scan(body, (w, jnp.zeros_like(w)), length=2)[1]

    assert stored_bytes(swapping, leaf(10, 3), X) == 120


def test_leaf_by_leaf():
    ternary = stored_in(2, jnp.round)
    one_bit = stored_in(1, lambda w: jnp.where(w > 0.5, 1.0, 0.0))

    def layer(variables, x):
        x = x @ sign_ste(variables["signs"]) + variables["bias"]
        return x @ ternary(variables["ternary"]) @ one_bit(variables["bits"])

    variables = {
        "signs": leaf(10, 3),
        "bias": leaf(3),
        "ternary": leaf(3, 3),
        "bits": leaf(3, 5),
        "unused": leaf(1),
    }
    bytes_ = {"signs": 4, "bias": 12, "ternary": 3, "bits": 2, "unused": 4}
    assert bytes_by_leaf(layer, variables, X) == bytes_
    # One bit is not enough to be a sign.
    assert kept_as_signs(layer, variables, X) == {name: name == "signs" for name in variables}


def test_bits_are_of_one_number_and_bytes_of_the_leaf():
    scaled = stored_in(5, lambda w, signs: (w * signs, jnp.ones(3)))

    def layer(variables, x):
        kernel, scale = scaled(variables["kernel"], variables["signs"])
        return x @ kernel * scale + variables["bias"]

    variables = {"bias": leaf(3, dtype=jnp.float16), "kernel": leaf(10, 3), "signs": leaf(10, 3)}
    bits, bytes_ = at_rest(layer, variables, X)
    assert bits == {"bias": 16, "kernel": 5, "signs": 0}
    assert bytes_ == {"bias": 6, "kernel": 19 + 12, "signs": 0}  # 150 bits, and three scales
