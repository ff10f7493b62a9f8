"""Counts against numbers worked out by hand in the comments."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from nnlab.arithmetics import ADDER, BINARY, FLOAT
from nnlab.costs import Counts, count
from nnlab.errors import InputError
from nnlab.models import LanguageModel, resnet20
from nnlab.ops.adder import adder_conv, adder_dense
from nnlab.ops.binary import binary_conv, sign_ste
from nnlab.ops.conjugate_adder import conjugate_adder_conv
from nnlab.ops.integer import adder_conv_uint8
from nnlab.ops.lp_adder import lp_adder_conv
from nnlab.ops.packed import binary_conv_packed, pack_signs
from nnlab.ops.squared_distance import squared_distance_conv
from nnlab.ops.winograd_adder import winograd_adder_conv


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def conv(x, kernel, stride=1, padding="SAME"):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=numbers
    )


def float32(counts: Counts, *kinds: str) -> tuple[int, ...]:
    """The named kinds, after checking that nothing else was counted and all is float32."""
    for kind, numbers in counts._asdict().items():
        assert set(numbers) <= ({"float32"} if kind in kinds else set()), (kind, numbers)
    return tuple(getattr(counts, kind).get("float32", 0) for kind in kinds)


MULTIPLY_ADD = ("multiplications", "additions")


def test_lenet_on_32_by_32():
    def lenet(x, c1, c3, c5, f6, f7):
        x = nn.avg_pool(conv(x, c1, padding="VALID"), (2, 2), (2, 2))
        x = nn.avg_pool(conv(x, c3, padding="VALID"), (2, 2), (2, 2))
        x = conv(x, c5, padding="VALID").reshape(1, 120)
        return x @ f6 @ f7

    counts = count(
        lenet,
        shape(1, 32, 32, 1),
        shape(5, 5, 1, 6),
        shape(5, 5, 6, 16),
        shape(5, 5, 16, 120),
        shape(120, 84),
        shape(84, 10),
    )
    # 28.28.6.25 + 10.10.16.150 + 120.400 + 120.84 + 84.10 = 117600+240000+48000+10080+840
    products = 416_520
    # Pools add three times an output, 14.14.6 + 5.5.16 = 1576 outputs, and divide once.
    assert counts.multiplications == {"float32": products}
    assert counts.additions == {"float32": products + 3 * 1576}
    assert counts.other == {"float32": 1576}
    assert not counts.comparisons and not counts.bit_operations and not counts.unknown


def test_resnet_20_on_cifar_10_in_every_arithmetic():
    def counts(arithmetic):
        model, image = resnet20(arithmetic=arithmetic), shape(1, 32, 32, 3)
        return count(model.apply, jax.eval_shape(model.init, jax.random.key(0), image), image)

    products, distances, signs = counts(FLOAT), counts(ADDER), counts(BINARY)
    # The paper's net has 40,813,184 terms. 22 normalisations multiply each of 200,714 elements by
    # the scale of one of 794 channels, times its deviation.
    assert products.multiplications == {"float32": 40_813_184 + 200_714 + 794}
    # The first convolution, 32.32.16 outputs of 27 terms, and the classifier of 640 stay float.
    terms = 40_813_184 - 442_368 - 640
    assert products.multiplications["float32"] - distances.multiplications["float32"] == terms
    assert distances.additions["float32"] - products.additions["float32"] == terms
    assert distances.multiplications == signs.multiplications
    assert signs.bit_operations == {"bool": terms}
    assert signs.additions["int8"] == terms
    assert not products.unknown and not distances.unknown and not signs.unknown


def test_batch_norm_in_evaluation_mode():
    model = nn.BatchNorm(use_running_average=True)
    variables = jax.eval_shape(model.init, jax.random.key(0), shape(2, 4, 4, 8))
    counts = count(model.apply, variables, shape(2, 4, 4, 8))
    # x - mean, times (scale rsqrt(var + eps)), plus bias: 256 elements, 8 channels.
    assert counts.additions == {"float32": 2 * 256 + 8}
    assert counts.multiplications == {"float32": 256 + 8}
    assert counts.other == {"float32": 8}


def test_grouped_and_depthwise_convolution():
    def grouped(x, kernel):
        return nn.Conv(8, (3, 3), feature_group_count=4, use_bias=False).apply(
            {"params": {"kernel": kernel}}, x
        )

    counts = count(grouped, shape(1, 5, 5, 4), shape(3, 3, 1, 8))
    assert float32(counts, *MULTIPLY_ADD) == (25 * 8 * 9, 25 * 8 * 9)


def test_gradients_of_a_strided_convolution_cost_as_much_as_it():
    def both(x, kernel, g):
        return jax.vjp(lambda x, k: conv(x, k, stride=2), x, kernel)[1](g)

    forward = 4 * 4 * 6 * 9 * 3
    counts = count(both, shape(1, 8, 8, 3), shape(3, 3, 3, 6), shape(1, 4, 4, 6))
    # the convolution itself, its input gradient, its filter gradient
    assert float32(counts, *MULTIPLY_ADD) == (3 * forward, 3 * forward)


def test_dense_at_each_dtype():
    def dense(x, kernel, bias):
        return x @ kernel + bias

    counts = count(dense, shape(7, 5), shape(5, 3), shape(3))
    assert float32(counts, *MULTIPLY_ADD) == (105, 105 + 21)
    int8 = functools.partial(shape, dtype=jnp.int8)
    counts = count(
        functools.partial(jnp.matmul, preferred_element_type=jnp.int32), int8(7, 5), int8(5, 3)
    )
    assert (counts.multiplications, counts.additions) == ({"int8": 105}, {"int8": 105})


def test_max_pool_and_its_gradient():
    def pool(x):
        return nn.max_pool(x, (3, 3), (2, 2))

    counts = count(pool, shape(2, 9, 9, 4))
    assert float32(counts, "comparisons") == (2 * 4 * 4 * 4 * 8,)
    counts = count(lambda x, g: jax.vjp(pool, x)[1](g), shape(2, 9, 9, 4), shape(2, 4, 4, 4))
    assert float32(counts, "comparisons", "additions") == (2 * 128 * 8, 128)


def test_scan_multiplies_its_body_by_its_length():
    def recurrent(x, kernel):
        return jax.lax.scan(lambda carry, _: (jnp.tanh(carry @ kernel), None), x, length=7)[0]

    counts = count(recurrent, shape(4), shape(4, 4))
    assert float32(counts, *MULTIPLY_ADD, "other") == (7 * 16, 7 * 16, 7 * 4)


def test_loop_indices_are_free_but_not_a_loop_over_elements():
    def loop(x):
        return jax.lax.fori_loop(0, 5, lambda i, y: y.at[2 * i + 1].add(1.0), x)

    counts = count(loop, shape(20))
    assert counts.totals() == {**dict.fromkeys(Counts._fields, 0), "additions": 5}


def test_vmap_counts_every_example():
    counts = count(jax.vmap(conv), shape(5, 2, 8, 8, 3), shape(5, 3, 3, 3, 4))
    assert float32(counts, *MULTIPLY_ADD) == (5 * 2 * 64 * 4 * 27,) * 2


def test_nested_calls_are_entered():
    @jax.custom_jvp
    def triple(x):
        return x * 3.0

    triple.defjvps(lambda g, y, x: 3.0 * g)

    def nested(x):
        return jax.checkpoint(lambda y: jax.jit(triple)(y) * 2.0)(jax.nn.relu(x))

    assert float32(count(nested, shape(6)), "multiplications", "comparisons") == (12, 6)


def test_shards_count_once_a_device():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("data")
    square = jax.shard_map(lambda x: x * x, mesh=mesh, in_specs=spec, out_specs=spec)
    assert float32(count(square, shape(8)), "multiplications") == (8,)
    abstract = jax.sharding.AbstractMesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
    square = jax.shard_map(lambda x: x * x, mesh=abstract, in_specs=spec, out_specs=spec)
    assert float32(count(square, shape(8)), "multiplications") == (8,)


def test_branches_count_as_the_dearest():
    def choose(x):
        return jax.lax.cond(x[0] > 0, lambda x: x * x * x, lambda x: x + 1.0, x)

    counts = count(choose, shape(9))
    assert float32(counts, "multiplications", "comparisons") == (18, 1)

    def by_platform(x):
        return jax.lax.platform_dependent(x, cpu=lambda x: x + 1.0, default=lambda x: x * x * x)

    assert float32(count(by_platform, shape(9)), "multiplications") == (18,)


def test_while_without_a_known_length_is_refused_unless_it_only_counts():
    def halve(x):
        return jax.lax.while_loop(lambda y: y[0] > 1, lambda y: y / 2, x)

    with pytest.raises(InputError, match="while loop does arithmetic"):
        count(halve, shape(3))
    counting = count(lambda n: jax.lax.while_loop(lambda i: i < n, lambda i: i + 1, 0), 3)
    assert not any(counting.totals().values())


def test_unknown_primitives_are_visible_in_every_branch():
    def fourier(x):
        y = jax.lax.cond(x[0] > 0, lambda x: jnp.fft.rfft(x).real, lambda x: (x * x)[:5], x)
        return jax.lax.scan(lambda c, _: (jnp.fft.irfft(jnp.fft.rfft(c)), None), x, length=3)[0], y

    assert count(fourier, shape(8)).unknown == {"fft": 7}


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda x: x.sum(axis=0), {"additions": 8}),
        (lambda x: x.max(), {"comparisons": 11}),
        (lambda x: x.argmax(axis=1), {"comparisons": 9}),
        (lambda x: x.prod(), {"multiplications": 11}),
        (lambda x: jnp.cumsum(x, axis=1), {"additions": 9}),
        (lambda x: jax.lax.cummax(x, axis=0), {"comparisons": 8}),
        (lambda x: x**5, {"multiplications": 36}),  # (x x)(x x) x
        (lambda x: jax.lax.integer_pow(x, -2), {"multiplications": 12, "other": 12}),
        (lambda x: jax.lax.integer_pow(x, 1), {}),
        (lambda x: jnp.abs(-x.T), {}),
        (lambda x: jax.lax.clamp(0.0, x, 1.0), {"comparisons": 24}),
        (lambda x: jnp.exp(x) / 3, {"other": 24}),
        (lambda x: jnp.sort(x, axis=1), {"comparisons": 24}),  # 12 log2 4
        (lambda x: x.at[0].add(1.0), {"additions": 4}),
        (lambda x: x.at[:, 1].max(1.0), {"comparisons": 3}),
        (lambda x: jax.nn.relu(x.astype(jnp.bfloat16).astype(jnp.float32)), {"comparisons": 12}),
    ],
)
def test_one_primitive_at_a_time(fn, expected):
    counts = count(fn, shape(3, 4))
    assert {kind: number for kind, number in counts.totals().items() if number} == expected


def test_bit_operations_and_random_numbers():
    words = shape(6, dtype=jnp.uint32)
    counts = count(lambda a, b: jax.lax.population_count(~(a ^ b)) >> 1, words, words)
    assert counts.bit_operations == {"uint32": 24}
    bits = count(lambda key: jax.random.bits(key, (10,)), jax.random.key(0))
    assert bits.totals() == {**dict.fromkeys(Counts._fields, 0), "other": 10}


TERMS = 2 * 8 * 8 * 5 * 3 * 3 * 3  # y [2, 8, 8, 5] from kernels of 3 by 3 by 3


def test_adder_convolution_and_its_gradients():
    x, kernel, g = shape(2, 8, 8, 3), shape(3, 3, 3, 5), shape(2, 8, 8, 5)
    assert float32(count(adder_conv, x, kernel), "additions") == (2 * TERMS,)

    def gradients(x, kernel, g):
        return jax.vjp(functools.partial(adder_conv, filter_rule="sign"), x, kernel)[1](g)

    counts = count(gradients, x, kernel, g)
    assert float32(counts, "additions", "comparisons", "multiplications") == (
        (2 + 2 + 2) * TERMS,
        (2 + 1) * TERMS,
        (1 + 1) * TERMS,
    )


def test_adder_convolution_with_stride_dense_and_vmap():
    x, kernel = shape(2, 8, 8, 3), shape(3, 3, 3, 5)
    strided = count(functools.partial(adder_conv, strides=2), x, kernel)
    assert float32(strided, "additions") == (2 * TERMS // 4,)
    assert float32(count(adder_dense, shape(7, 5), shape(5, 3)), "additions") == (2 * 105,)
    for axes, images, kernels in [
        ((0, None), shape(7, 2, 8, 8, 3), kernel),
        ((0, 0), shape(7, 2, 8, 8, 3), shape(7, 3, 3, 3, 5)),
        ((1, None), shape(2, 7, 8, 8, 3), kernel),
    ]:
        counts = count(jax.vmap(adder_conv, in_axes=axes), images, kernels)
        assert float32(counts, "additions") == (7 * 2 * TERMS,)


def test_binary_convolution():
    def layer(x, kernel):
        return binary_conv(sign_ste(x), sign_ste(kernel))

    counts = count(layer, shape(2, 8, 8, 3), shape(3, 3, 3, 5))
    assert counts.bit_operations == {"bool": TERMS}
    assert counts.additions == {"int8": TERMS}
    assert counts.comparisons == {"float32": 2 * 64 * 3 + 135}
    assert not counts.multiplications and not counts.unknown


def test_the_transpose_of_a_function_keeps_its_name_but_is_entered():
    @jax.custom_vjp
    def straight_through(x):
        return jnp.sign(x)

    straight_through.defvjp(lambda x: (jnp.sign(x), x), lambda x, g: (g * jnp.cos(x),))

    @jax.jit
    def sign_ste(x):
        return straight_through(x)

    counts = count(lambda x, g: jax.vjp(sign_ste, x)[1](g), shape(6), shape(6))
    # forward by the table, backward as written
    assert float32(counts, "comparisons", "multiplications", "other") == (6, 6, 6)


def test_adder_convolution_of_bytes():
    x, kernel = shape(2, 8, 8, 3, dtype=jnp.uint8), shape(3, 3, 3, 5, dtype=jnp.uint8)
    terms = 2 * 8 * 8 * 5 * 27
    counts = count(adder_conv_uint8, x, kernel)
    assert counts.additions == {"uint8": 2 * terms}
    assert counts.totals() == dict.fromkeys(Counts._fields, 0) | {"additions": 2 * terms}
    batched = shape(4, *x.shape, dtype=jnp.uint8)
    mapped = count(jax.vmap(adder_conv_uint8, in_axes=(0, None)), batched, kernel)
    assert mapped.additions == {"uint8": 8 * terms}


@pytest.mark.parametrize("channels, counted", [(64, 64), (40, 64)])  # whole words
def test_binary_convolution_of_words(channels, counted):
    def packed(x, kernel):
        words = pack_signs(x), pack_signs(kernel, axis=2)
        return binary_conv_packed(*words, channels=channels)

    counts = count(packed, shape(2, 8, 8, channels), shape(3, 3, channels, 5))
    terms = 2 * 8 * 8 * 5 * 9 * counted
    assert counts.bit_operations == {"bool": terms} and counts.additions == {"int8": terms}
    # A comparison with zero a sign that is packed.
    assert counts.comparisons == {"float32": 2 * 8 * 8 * channels + 9 * channels * 5}
    assert not counts.unknown and not counts.multiplications


def test_relatives_of_the_adder():
    x, kernel, g = shape(2, 8, 8, 3), shape(3, 3, 3, 5), shape(2, 8, 8, 5)
    conjugate = count(conjugate_adder_conv, x, kernel)
    assert float32(conjugate, "comparisons", "additions") == (TERMS, TERMS)

    p = functools.partial(lp_adder_conv, p=jnp.array(1.5))
    powers = count(p, x, kernel)
    assert powers.additions == {"float32": 2 * TERMS} and powers.other == {"float32": TERMS}
    gradients = count(lambda x, w, g: jax.vjp(p, x, w)[1](g), x, kernel, g)
    # Forward 2, and for each of two cotangents a difference and a sum.
    assert gradients.additions == {"float32": 6 * TERMS}
    assert gradients.multiplications == {"float32": 4 * TERMS}
    assert gradients.other == {"float32": 3 * TERMS}

    # A convolution, squares of 384 inputs and 135 weights, and the product of 640 outputs with 2.
    # The squares are summed over 3 channels of 128 pixels, 9 pixels of 128 windows and 27 inputs of
    # 5 filters, and both sums taken from every output.
    squared = count(squared_distance_conv, x, kernel)
    assert float32(squared, *MULTIPLY_ADD) == (
        TERMS + 384 + 135 + 640,
        TERMS + 2 * 128 + 8 * 128 + 26 * 5 + 2 * 640,
    )


def test_winograd_takes_16_distances_where_the_adder_takes_36():
    counts = count(winograd_adder_conv, shape(2, 8, 8, 3), shape(3, 3, 3, 5))
    # 32 tiles. Transforms: of a tile 8 columns and rows of 4 additions, a channel; of a filter 7 of
    # 3 additions and 2 halves, an input and output; of the outputs 6 of 4 additions.
    tiles = 2 * 4 * 4
    transforms = tiles * 3 * 32 + 15 * 21 + tiles * 5 * 24
    assert float32(counts, "additions", "multiplications") == (
        2 * (16 * tiles * 3 * 5) + transforms,
        15 * 14,
    )
    assert 16 * tiles * 3 * 5 * 36 == 16 * TERMS


def test_adders_within_a_loop_over_time():
    model = LanguageModel(5, features=4, layers=1, arithmetic=ADDER)
    symbols = jnp.zeros((1, 7), jnp.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), symbols)
    counts = count(model.apply, variables, symbols)
    assert not counts.unknown
    # A step: two products of 4 by 16 with two additions a term, their sum, the bias, the new cell;
    # the classifier's product of 4 by 5, its bias; three products of a gate and 4 units.
    assert counts.additions["float32"] == 7 * (2 * 2 * 4 * 16 + 16 + 16 + 4 + 4 * 5 + 5)
    assert counts.multiplications == {"float32": 7 * (4 * 5 + 3 * 4)}
