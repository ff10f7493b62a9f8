"""Checks for whoever invents a layer: compare a gradient rule with the potential it comes from.

A rule of this kit need not be the gradient of the forward function, but it is the gradient of
something, and that makes it testable. Three lines are enough:

    x = jnp.linspace(-2.0, 2.0, 8)
    sign = lambda x: np.where(x >= 0, 1.0, -1.0)
    check_gradient_rule(sign_ste, [x], value=sign, potentials=[lambda x: jnp.clip(x, -1, 1)])
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nnlab.ops.windows import Padding, window_of

Function = Callable[..., Any]
# What takes time is to compile, not to run.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def check_gradient_rule(
    op: Function,
    args: Sequence[Any],
    *,
    value: Function,
    potentials: Sequence[Function | None],
    errors: Sequence[tuple[Sequence[Any], str]] = (),
    rtol: float = 1e-5,
    atol: float = 1e-5,
    bfloat16_rtol: float = 2**-8,
    thorough: bool = True,
) -> None:
    """Check value, gradient rules, dtypes, transformations and error messages of an op.

    The references run in float64, on the op's own inputs. Cotangents are drawn once from the
    multiples of 1/4 in [-2, 2], which every floating dtype holds exactly; where the arguments are
    such numbers too, short sums are exact and `rtol=0, atol=0` is a fair demand.

    Args:
        op: function of positional arrays that returns one array.
        args: example arguments, float32 where they have a rule.
        value: the forward function of float64 NumPy arrays, in NumPy or JAX.
        potentials: one for each argument. The rule of an argument is the true gradient of its
            potential, which takes all arguments and returns an array of the output's shape. At a
            kink JAX has its own slope (`jnp.clip` a half), so keep `args` off kinks or write the
            slope out. None for an argument that is held fixed, such as a random key.
        errors: pairs of arguments that `op` must refuse with a ValueError or a TypeError, and a
            regular expression that occurs in the message, which must be one sentence.
        rtol, atol: relative and absolute tolerance in float32.
        bfloat16_rtol: added to `rtol` for results in bfloat16; one rounding by default.
        thorough: whether to check other dtypes and all transformations, or float32 under `jax.jit`
            alone, which takes a tenth of the time.

    Raises:
        AssertionError: something differs; the sentence says what, in which argument's cotangent,
            under which transformation, by how much and where.
    """
    chex.assert_equal(len(potentials), len(args))
    name = getattr(getattr(op, "func", op), "__name__", repr(op))
    for bad, pattern in errors:
        _assert_refuses(name, op, bad, pattern)

    moving = [i for i, potential in enumerate(potentials) if potential is not None]
    values = [np.asarray(args[i]) for i in moving]
    chex.assert_type(values, jnp.float32)
    held = [jnp.asarray(a).dtype for i, a in enumerate(args) if i not in moving]
    held = [dtype for dtype in held if jnp.issubdtype(dtype, jnp.floating)]

    def of_moving(function):
        def substituted(*values):
            new = dict(zip(moving, values, strict=True))
            return function(*(new.get(i, a) for i, a in enumerate(args)))

        return substituted

    op, value = of_moving(op), of_moving(value)
    whats = ["value", *(f"cotangent of argument {i}" for i in moving)]

    def rule(g, *values):
        y, pull = jax.vjp(op, *values)
        chex.assert_shape(y, g.shape)
        return y, *pull(g.astype(y.dtype))

    jit = functools.partial(jax.jit, compiler_options=_QUICK)

    def slopes(g, *values):
        results = []
        for position, i in enumerate(moving):
            y, pull = jax.vjp(of_moving(potentials[i]), *values)
            chex.assert_shape(y, g.shape)
            results.append(pull(g)[position])
        return results

    compiled_slopes = jit(slopes)

    def reference(g, *values):
        try:
            pulled = compiled_slopes(g, *values)
        except jax.errors.JAXTypeError:  # a potential works something out in NumPy
            pulled = slopes(g, *values)
        return [value(*values), *pulled]

    def check(how, function, operands, expected, out_dtype):
        try:
            results = function(*map(jnp.asarray, operands))
        except Exception as error:
            raise AssertionError(f"{name} {how} raised {type(error).__name__}: {error}") from error
        dtypes = [out_dtype, *(v.dtype for v in operands[1:])]
        for what, got, wanted, dtype in zip(whats, results, expected, dtypes, strict=True):
            slack = rtol + bfloat16_rtol if dtype == jnp.bfloat16 else rtol
            _assert_close(f"{name}: {what} {how}", got, wanted, dtype, slack, atol)

    shape = max(2, jax.local_device_count()), *_in_float64(value, *values).shape
    g = (np.random.default_rng(0).integers(-8, 9, shape) / 4).astype(np.float32)
    jitted = jit(rule)

    narrow, wide = jnp.bfloat16, jnp.float32
    kinds: dict[str, tuple[Any, ...]] = {"float32": (wide,), "bfloat16": (narrow,)}
    if len(moving) > 1:
        kinds["both"] = narrow, wide
    for kind, dtypes in kinds.items():
        cast = [v.astype(dtypes[p % len(dtypes)]) for p, v in enumerate(values)]
        out_dtype = jnp.result_type(*cast, *held)
        operands = g[0].astype(out_dtype), *cast
        expected = _in_float64(reference, *operands)
        if thorough:
            check(f"in {kind}, eager", rule, operands, expected, out_dtype)
        check(f"in {kind}, jitted", jitted, operands, expected, out_dtype)
        if not thorough:
            return

    def loop_agrees(how, function, batched, examples=2):
        """Run `function` on stacked examples, which differ in the arguments that are `batched`."""
        of_example = [
            (g[k], *(np.roll(v, k) if b else v for v, b in zip(values, batched, strict=True)))
            for k in range(examples)
        ]
        expected = [np.stack(r) for r in zip(*(jitted(*e) for e in of_example), strict=True)]
        columns = zip(zip(*of_example, strict=True), (True, *batched), strict=True)
        operands = [np.stack(column) if b else column[0] for column, b in columns]
        check(how, function, operands, expected, wide)

    def scanned(g, *stacked):
        def step(_, values):
            return None, jax.checkpoint(op)(*values)

        y, pull = jax.vjp(lambda *stacked: jax.lax.scan(step, None, stacked)[1], *stacked)
        return y, *pull(g)

    every = [True] * len(moving)
    groups = {f"argument {i}": [i == j for j in moving] for i in moving}
    if len(moving) > 1:
        groups["all"] = every
    for which, batched in groups.items():
        axes = (0, *(0 if b else None for b in batched))
        loop_agrees(f"under vmap over {which}", jit(jax.vmap(rule, axes)), batched)
    loop_agrees("under scan of checkpoint", jit(scanned), every)
    loop_agrees("under pmap", jax.pmap(rule), every, jax.local_device_count())


def _in_float64(function, *arrays):
    with jax.enable_x64(True):
        results = function(*(np.asarray(a, np.float64) for a in arrays))
        return jax.tree.map(lambda r: np.asarray(r, np.float64), results)


def _assert_close(what, got, expected, dtype, rtol, atol):
    """NaN equals NaN, and an infinity only itself."""
    if got.dtype != dtype:
        raise AssertionError(f"{what} has dtype {got.dtype}, not {jnp.dtype(dtype)}.")
    got = np.asarray(got, np.float64)
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        difference = np.nan_to_num(np.abs(got - expected), nan=np.inf, posinf=np.inf)
    allowed = atol + rtol * np.where(np.isfinite(expected), np.abs(expected), 0)
    excess = np.where(same, 0, difference) - allowed
    if (excess > 0).any():
        at = tuple(int(i) for i in np.unravel_index(excess.argmax(), excess.shape))
        raise AssertionError(
            f"{what} differs most, by {difference[at]:.3g}, at {at}: "
            f"{got[at]:.6g} where {expected[at]:.6g} was expected."
        )


def _assert_refuses(name, op, bad, pattern):
    call = ", ".join(f"{a.dtype}{a.shape}" if hasattr(a, "shape") else repr(a) for a in bad)
    try:
        op(*bad)
    except (ValueError, TypeError) as error:
        message = str(error)
        if not re.search(pattern, message):
            raise AssertionError(f"{name}({call}) says {message!r}, not {pattern!r}.") from error
        if not message.endswith(".") or "\n" in message:
            raise AssertionError(
                f"{name}({call}) should say one sentence, not {message!r}."
            ) from error
    except Exception as error:
        raise AssertionError(f"{name}({call}) raised {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(f"{name}({call}) raised nothing, but {pattern!r} was expected.")


def term_sum(
    term: Function,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
) -> Function:
    """Make the sum of an elementwise `term(x, w)` over windows of images, by brute force.

    What it makes takes x and kernel, images [batch, height, width, in] and filters
    [kh, kw, in, out] or vectors [..., in] and a matrix [in, out], and is the value of
    `nnlab.ops.terms.term_conv` or `term_dense`, or a potential of its rules:

        term = Term(value, filter_rule, input_rule)
        check_gradient_rule(functools.partial(term_conv, term=term), [x, kernel],
            value=term_sum(value), potentials=[term_sum(of_inputs), term_sum(of_weights)])
    """

    def of(x: ArrayLike, kernel: ArrayLike) -> jax.Array:
        if jnp.ndim(kernel) == 2:
            return term(jnp.asarray(x)[..., None], jnp.asarray(kernel)).sum(-2)
        options: Any = dict(strides=strides, padding=padding, kernel_dilation=kernel_dilation)
        windows = image_windows(x, jnp.shape(kernel)[:2], **options)
        return term(windows[..., None], jnp.asarray(kernel)).sum((3, 4, 5))

    return of


def image_windows(
    x: ArrayLike,
    kernel_size: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
) -> jax.Array:
    """Write out the windows [batch, out height, out width, kh, kw, in] of images.

    Images are [batch, height, width, in]; the options are those of `nnlab.ops.adder.adder_conv`.
    References of convolution-like layers are sums over windows; a layer itself should not write
    them out.
    """
    window = window_of(jnp.shape(x), kernel_size, strides, padding, kernel_dilation)
    x = jnp.pad(x, ((0, 0), *window.padding, (0, 0)))

    def pixels(axis):  # [out, taps]
        taps = window.dilation[axis] * np.arange(kernel_size[axis])
        return np.arange(0, x.shape[1 + axis] - taps[-1], window.strides[axis])[:, None] + taps

    return x[:, pixels(0)[:, None, :, None], pixels(1)[None, :, None, :]]
