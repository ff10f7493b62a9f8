"""What every arithmetic promises: the same product in dense layers and along one to three axes.

A window is a vector, so one float64 reference of a dense product serves all: it sees the windows
written out. Add an arithmetic to `NAMED`, say in `REFERENCES` what it computes and in `TERMS` what
a term costs, and it is tested.
"""

import functools
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from nnlab import kernels, training
from nnlab.arithmetics import NAMED, Arithmetic, lp_adder, of_product, of_term
from nnlab.costs import count
from nnlab.models import MLP, SmallCNN, load_model, save_model
from nnlab.ops.formats import FLOAT8_E4M3, posit, scaled
from nnlab.ops.sparse import n_m_sparse
from nnlab.optim import adder_recipe

ARITHMETICS = NAMED | {
    "lp_adder": lp_adder(lambda step: 1.5 + 0 * step),
    "sparse": of_product(n_m_sparse(n=1, m=2)),
    "own": of_term(lambda x, w: 0.5 - jnp.maximum(x, w)),
}
BATCH, SIZES, INPUTS, FEATURES = 4, (6, 4, 3), 3, 8
TAPS, STRIDES, PADS, DILATION = (2, 2, 3), (2, 1, 1), ((1, 2), (0, 1), (1, 0)), (1, 2, 1)
# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def shape_of(axes):
    return BATCH, *SIZES[:axes], INPUTS


def layer_of(arithmetic: Arithmetic, axes: int, **options) -> Any:
    if not axes:
        return arithmetic.dense(FEATURES, **options)
    moves: Any = dict(strides=STRIDES, padding=PADS, kernel_dilation=DILATION)
    moves = {name: value[:axes] for name, value in moves.items()}
    return arithmetic.conv(FEATURES, TAPS[:axes], **moves, **options)


def windows(x, taps, strides, pads, dilation):
    """Windows [batch, *out sizes, taps * in] of x [batch, *sizes, in]."""
    axes = len(taps)
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    extents = [(k - 1) * d + 1 for k, d in zip(taps, dilation, strict=True)]
    x = np.lib.stride_tricks.sliding_window_view(x, extents, axis=tuple(range(1, axes + 1)))
    places = tuple(slice(None, None, s) for s in strides)
    x = x[:, *places, :, *(slice(None, None, d) for d in dilation)]
    x = np.moveaxis(x, axes + 1, -1)
    return x.reshape(*x.shape[: axes + 1], -1)


class Windows:
    """Windows of a case: `v(x)` of its inputs, `v.again(y)` of a second layer that keeps sizes."""

    def __init__(self, axes):
        self.axes = axes

    def __call__(self, x):
        given = (TAPS, STRIDES, PADS, DILATION)
        return windows(x, *(each[: self.axes] for each in given)) if self.axes else x

    def again(self, y):
        taps, ones = TAPS[: self.axes], (1,) * self.axes
        pads = [((k - 1) // 2, k // 2) for k in taps]
        return windows(y, taps, ones, pads, ones) if self.axes else y


def sign(a):
    return np.where(a >= 0, 1.0, -1.0)


def size(w):
    return np.abs(w).mean(0)


def distance(x, w):
    return -np.abs(x[..., None] - w).sum(-2)


def minima(x, w):
    x = x[..., None]
    return (2 * np.sign(x) * np.sign(w) * np.minimum(np.abs(x), np.abs(w))).sum(-2)


def power_of_two(w):
    return np.sign(w) * 2.0 ** np.clip(np.round(np.log2(np.abs(w))), -14, 0)


def shift_ps(exponent, sign):
    return np.sign(np.round(sign)) * 2.0 ** np.clip(np.round(exponent), -14, 0)


def by_mean(w):
    return np.clip(np.round(w / np.abs(w).mean()), -1, 1) * np.abs(w).mean()


def centred(w, axis=None):
    return sign(w - w.mean(axis)) * np.abs(w).mean(axis)


def int8(x):
    step = np.abs(x).max(tuple(range(1, x.ndim)), keepdims=True) / 127
    return np.round(x / step) * step


def tokens(v, x):
    """Eight-bit inputs; a dense layer's tokens are all examples."""
    return int8(x.reshape(-1, x.shape[-1])).reshape(x.shape) if not v.axes else int8(x)


def rms(x, scale):
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6) * scale


def added(x, w):
    """Products by the sum of exponents and fractions, with the carry, and their sum."""
    x = x[..., None]
    (a, e), (b, f) = np.frexp(np.abs(x)), np.frexp(np.abs(w))  # from 1/2 to 1
    fraction = 2 * a + 2 * b - 2 + 1 / 16
    carry = np.floor(fraction).astype(int)
    whole = np.ldexp(1 + fraction - carry, carry + e + f - 2)
    return (np.sign(x) * np.sign(w) * whole).sum(-2)


def ternary(w):
    codes = sign(w) * (np.abs(w) >= 0.7 * np.abs(w).mean())
    return codes * np.abs(w)[codes != 0].mean()


def levels(u, bits):
    return np.round(u * (2**bits - 1)) / (2**bits - 1)


def dorefa_weights(w):
    return 2 * levels(np.tanh(w) / (2 * np.abs(np.tanh(w)).max()) + 0.5, 4) - 1


def in_format(form, a):
    return np.float64(jax.jit(form.split)(np.asarray(a, np.float32))[0])


def formatted(product, weights, inputs):
    return lambda v, x, w: product(v(in_format(inputs, x)), in_format(weights, w))


def one_of_two(w):
    """Keep the larger of each two inputs of a tap of w [taps * in, out]; the third stays."""
    taps = np.abs(w.reshape(-1, INPUTS, w.shape[-1]))
    first = taps[:, 0] > taps[:, 1]
    kept = np.stack([first, ~first, np.ones_like(first)], 1)
    return w * kept.reshape(w.shape)


# {name: function of the windows, the inputs and the layer's weights [taps * in, out] by name}
POSIT8, POSIT16 = posit(8, 1), posit(16, 1)
REFERENCES: dict[str, Any] = {
    "float": lambda v, x, w: v(x) @ w,
    "adder": lambda v, x, w: distance(v(x), w),
    "conjugate_adder": lambda v, x, w: minima(v(x), w),
    "squared_distance": lambda v, x, w: -((v(x)[..., None] - w) ** 2).sum(-2),
    "winograd_adder": lambda v, x, w: distance(v(x), w),  # these windows have no other form
    "adder_sr": lambda v, x, w: distance(v(x), w),
    "shift_add": lambda v, x, second, w: distance(v.again(v(x) @ power_of_two(w)), second),
    "shift_q": lambda v, x, w: v(x) @ power_of_two(w),
    "shift_ps": lambda v, x, exponent, sign: v(x) @ shift_ps(exponent, sign),
    "binary": lambda v, x, w: v(sign(x)) @ sign(w),
    "binary_connect": lambda v, x, w: v(x) @ sign(w),
    "binary_connect_stochastic": lambda v, x, w: v(x) @ w,
    "xnor": lambda v, x, w: v(sign(x)) @ sign(w) * size(w) * v(np.abs(x)).mean(-1, keepdims=True),
    "bireal": lambda v, x, w: v(sign(x)) @ sign(w) * size(w),
    "binary_swish": lambda v, x, w: v(sign(x)) @ sign(w),
    "ternary": lambda v, x, w: v(x) @ ternary(w),
    "dorefa_1_2": lambda v, x, w: v(levels(np.clip(x, 0, 1), 2)) @ sign(w) * np.abs(w).mean(),
    "dorefa_4_4_8": lambda v, x, w: v(levels(np.clip(x, 0, 1), 4)) @ dorefa_weights(w),
    "posit8": formatted(np.matmul, scaled(POSIT8), POSIT8),
    "posit16": formatted(np.matmul, scaled(POSIT16), POSIT16),
    "float8": formatted(np.matmul, scaled(FLOAT8_E4M3), FLOAT8_E4M3),
    "adder_posit8": formatted(distance, scaled(POSIT8), POSIT8),
    "shift_add_vit": lambda v, x, exponent, sign: v(x) @ shift_ps(exponent, sign),
    "bitnet": lambda v, x, norm, w: v(tokens(v, rms(x, norm))) @ by_mean(w),
    "bitnet_b1": lambda v, x, norm, w: v(tokens(v, rms(x, norm))) @ centred(w),
    "bit": lambda v, x, offset, scale, w: v(sign(x + offset)) @ centred(w) * scale,
    "bibert": lambda v, x, w: v(sign(x)) @ centred(w, 0),
    "l_mul": lambda v, x, w: added(v(x), w),
    "lp_adder": lambda v, x, w: -(np.abs(v(x)[..., None] - w) ** 1.5).sum(-2),
    "sparse": lambda v, x, w: v(x) @ one_of_two(w),
    "own": lambda v, x, w: (0.5 - np.maximum(v(x)[..., None], w)).sum(-2),
}
PRODUCT, DISTANCE, ADDITION = (1, 1, 0, 0, 0), (0, 2, 0, 0, 0), (0, 1, 0, 0, 0)
XNOR = SHIFT = 0, 1, 0, 1, 0
# {name: multiplications, additions, comparisons, bit operations, others of one term}
TERMS = dict.fromkeys(NAMED, PRODUCT) | dict.fromkeys(["xnor", "bireal", "binary_swish"], XNOR)
TERMS |= dict.fromkeys(["adder", "winograd_adder", "adder_sr", "adder_posit8"], DISTANCE)
TERMS |= dict.fromkeys(["binary_connect", "ternary", "dorefa_1_2"], ADDITION)
TERMS |= {"binary": XNOR, "conjugate_adder": (0, 1, 1, 0, 0), "lp_adder": (0, 2, 0, 0, 1)}
TERMS |= dict.fromkeys(["bit", "bibert"], XNOR) | {"l_mul": DISTANCE}
TERMS |= dict.fromkeys(["bitnet", "bitnet_b1"], ADDITION)
TERMS |= dict.fromkeys(["shift_q", "shift_ps", "shift_add_vit"], SHIFT)
TERMS |= {"sparse": PRODUCT, "own": (0, 2, 1, 0, 0)}

SIGNS: Any = {"binary", "binary_connect", "binary_swish"}  # whose weights are stored as such

NAMES = list(ARITHMETICS)
# These differ from others by a number or a quantiser; two more take long to compile.
ALIKE = {"posit16", "float8", "dorefa_4_4_8", "adder_sr", "binary_swish", "adder_posit8"}
ALIKE |= {"shift_add_vit", "bitnet_b1", "bibert"}
SLOW = {(name, axes) for name in ALIKE for axes in (1, 2, 3)}
SLOW |= {(name, axes) for name in ("posit8", "lp_adder", "bitnet", "bit") for axes in (1, 2)}
SLOW |= {("l_mul", axes) for axes in (1, 2, 3)}
SLOW |= {("own", axes) for axes in (0, 1, 2, 3)}
IN_SPACE = [
    pytest.param(name, axes, marks=[pytest.mark.slow] if (name, axes) in SLOW else [])
    for name in NAMES
    for axes in (0, 1, 2, 3)
]
every_arithmetic = pytest.mark.parametrize("name", NAMES)


@functools.cache
def case(name, axes):
    """The layer, its variables and inputs; numbers of both signs off the edges of quantisers."""
    rng = np.random.default_rng(axes)
    layer = layer_of(ARITHMETICS[name], axes)
    x = rng.normal(size=shape_of(axes)).astype(np.float32)
    with kernels.use("cpu"):  # nothing to trace for other platforms
        shapes = jax.eval_shape(layer.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype), shapes)
    if "input_scale" in variables["params"]:
        variables["params"]["input_scale"] = np.float32(1.5)  # a learnt one is above 0
    return layer, variables, x


def passes(layer, variables, x):
    """The output, and the gradients of parameters and inputs in training."""
    stats = {name: tree for name, tree in variables.items() if name != "params"}

    def apply(params, x):
        rngs = {"dropout": jax.random.key(0)}
        return layer.apply({"params": params} | stats, x, mutable=["batch_stats"], rngs=rngs)[0]

    y, pull = jax.vjp(apply, variables["params"], x)
    return y, pull(jnp.ones_like(y))


@pytest.mark.parametrize(("name", "axes"), IN_SPACE)
def test_value_and_finite_gradients(name, axes):
    layer, variables, x = case(name, axes)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def both(variables, x):
        return layer.apply(variables, x), passes(layer, variables, x)[1]

    with kernels.use("cpu"):
        y, gradients = jax.device_get(both(variables, x))
    weights = jax.tree.leaves(variables["params"])  # by name
    weights = [np.float64(w).reshape(-1, *w.shape[-1:]) for w in weights]
    expected = REFERENCES[name](Windows(axes), np.float64(x), *weights)
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance)
    given = variables["params"], x
    for gradient, operand in zip(*map(jax.tree.leaves, (gradients, given)), strict=True):
        assert gradient.shape == operand.shape and gradient.dtype == operand.dtype
        assert np.isfinite(gradient).all() and np.any(gradient)


@pytest.mark.parametrize("axes", [0, 3])
@every_arithmetic
def test_bfloat16_vmap_and_counts(name, axes):
    layer, variables, x = case(name, axes)
    narrow = layer.clone(dtype=jnp.bfloat16)
    # Nothing relies on what JAX repeats by itself, nor on what it converts.
    with kernels.use("cpu"), jax.numpy_rank_promotion("raise"):
        y, (params, dx) = jax.eval_shape(functools.partial(passes, narrow), variables, x)
    assert y.dtype == jnp.bfloat16 and dx.dtype == jnp.float32
    like = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (params, variables["params"]))
    assert like[0] == like[1]

    examples = jax.ShapeDtypeStruct((5, *x.shape), x.dtype)
    with jax.numpy_dtype_promotion("strict"):
        ys = jax.eval_shape(jax.vmap(layer.apply, (None, 0)), variables, examples)
    assert ys.shape == (5, *y.shape)

    alone = layer.clone(norm=False) if hasattr(layer, "norm") else layer
    counts = count(alone.apply, variables, x).totals()
    assert counts.pop("unknown") == 0
    *first, kernel = jax.tree.leaves(variables["params"])  # by name
    terms = y.size * math.prod(kernel.shape[:-1])
    if name == "shift_add":
        distances = y.size * math.prod(first[0].shape[:-1])
        assert counts["bit_operations"] == terms and not counts["multiplications"]
        assert counts["additions"] == terms + 2 * distances
    else:
        assert tuple(number // terms for number in counts.values()) == TERMS[name]


@every_arithmetic
def test_dense_layers_of_sequences_on_a_mesh(name):
    mesh = jax.make_mesh((1,), ("devices",))  # of explicit axes
    layer = ARITHMETICS[name].dense(FEATURES)
    variables = jax.eval_shape(layer.init, jax.random.key(0), jnp.ones((1, INPUTS)))
    split = NamedSharding(mesh, PartitionSpec("devices"))
    x = jax.ShapeDtypeStruct((BATCH, 5, INPUTS), jnp.float32, sharding=split)
    with jax.set_mesh(mesh):
        key = jax.eval_shape(jax.random.key, 0)
        y = jax.eval_shape(
            lambda v, x, k: layer.apply(v, x, rngs={"dropout": k}), variables, x, key
        )
    assert y.shape == (BATCH, 5, FEATURES) and y.sharding.spec[0] == "devices"


# One of each kind: a learnt activation, two arrays of weights, draws at random, a state, formats.
KINDS = {"adder_sr", "shift_ps", "binary_connect_stochastic", "lp_adder", "posit8"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in KINDS else pytest.mark.slow) for n in NAMES]
)
def test_a_training_step_of_a_model_keeps_the_state_as_it_is(name):
    layers = ARITHMETICS[name]
    model = SmallCNN(3, layers, first=layers, classifier=layers, widths=(2, 2, 2))
    optimizer = adder_recipe(9)
    images, labels = np.zeros((4, 4, 4, 1), np.float32), np.zeros(4, np.int32)
    key = jax.eval_shape(jax.random.key, 0)
    with kernels.use("cpu"):  # as above
        state = jax.eval_shape(lambda key: training.init(key, model, optimizer, images), key)
        after, _ = jax.eval_shape(training.train_step(model, optimizer), state, (images, labels))
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


@pytest.mark.parametrize("name", NAMED)
def test_in_a_file_and_back(name, tmp_path):
    model = MLP(3, NAMED[name], depth=2, width=4, norm=NAMED[name].needs_norm)
    x = jax.ShapeDtypeStruct((1, 5), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype), shapes)
    save_model(tmp_path / "model", model, variables, x)
    loaded = load_model(tmp_path / "model")
    assert loaded.model == model
    found = jax.tree_util.tree_leaves_with_path(loaded.variables)
    for (path, got), kept in zip(found, jax.tree.leaves(variables), strict=True):
        as_signs = name in SIGNS and "binary" in str(path)
        np.testing.assert_array_equal(got, sign(kept) if as_signs else kept)


NORMAL = ["float", "bitnet", "bitnet_b1", "l_mul"]  # in themselves, or by a norm inside


def test_names_say_what_there_is():
    assert [arithmetic.name for arithmetic in NAMED.values()] == list(NAMED)
    assert all(arithmetic.about for arithmetic in NAMED.values())
    assert [name for name in NAMED if not NAMED[name].needs_norm] == NORMAL
    convolution = [name for name in NAMED if NAMED[name].shortcuts == "convolution"]
    assert convolution == ["adder_sr", "bireal"]


def images_only(x, kernel, *, strides=1, padding="SAME", kernel_dilation=1):
    """A product as users write them, which knows nothing of other axes."""
    order = ("NHWC", "HWIO", "NHWC")
    steps = np.broadcast_to(strides, 2).tolist()
    return jax.lax.conv_general_dilated(x, kernel, steps, padding, dimension_numbers=order)


def test_a_product_of_your_own_may_know_images_only():
    layers = of_product(images_only)
    layer: Any = layers.dense(FEATURES)
    x = jnp.ones((2, 4, INPUTS))
    variables = layer.init(jax.random.key(0), x)
    np.testing.assert_allclose(
        layer.apply(variables, x), x @ variables["params"]["kernel"], rtol=1e-6
    )
