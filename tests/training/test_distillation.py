"""Distillation: its losses by hand, who learns from what, and the student alone."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnlab.arithmetics import ADDER, BINARY, SHIFT_ADD, of_product
from nnlab.costs import count
from nnlab.errors import InputError
from nnlab.models import SmallCNN
from nnlab.ops.adder import adder_conv
from nnlab.training import (
    Distillation,
    State,
    cross_entropy,
    distillation_loss,
    evaluation,
    train_step,
)
from nnlab.training.distillation import Outputs, _Kernel, student_accuracy

WIDTHS = (2, 3, 3)
STUDENT, TEACHER = SmallCNN(arithmetic=ADDER, widths=WIDTHS), SmallCNN(widths=WIDTHS)
MODEL = Distillation(STUDENT, TEACHER)
IMAGES = np.random.default_rng(0).normal(size=(6, 4, 4, 1)).astype(np.float32)
LABELS: Any = np.arange(6)
# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@functools.cache
def variables():
    """Arrays of the model's shapes, drawn without compiling its initialisers."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), IMAGES)
    return jax.tree.map(lambda s: rng.uniform(0.1, 0.9, s.shape).astype(s.dtype), shapes)


def test_loss_by_hand():
    # Two classes. Student's logits 0 and ln 3: probabilities 1/4 and 3/4; teacher's 0 and ln 1/3:
    # 3/4 and 1/4; the label is 1. Hard: ln 4/3; soft: 3/4 ln 4 + 1/4 ln 4/3; teacher's own: ln 4.
    log = np.log
    logits: Any = np.array([[0.0, log(3)]])
    outputs = Outputs(logits, -logits, jnp.float32(5))
    hard, soft = log(4 / 3), 0.75 * log(4) + 0.25 * log(4 / 3)
    got = jax.jit(distillation_loss(alpha=0.2, beta=0.1))(outputs, np.array([1]))
    np.testing.assert_allclose(got, 0.5 + 0.8 * hard + 0.2 * soft + log(4), rtol=1e-6)
    # At temperature 2 the same numbers for logits of twice the size, times 4.
    outputs = Outputs(2 * outputs.student, 2 * outputs.teacher, outputs.distance)
    got = jax.jit(distillation_loss(alpha=1, beta=0, temperature=2))(outputs, np.array([1]))
    np.testing.assert_allclose(got, 4 * soft + log(10), rtol=1e-6)  # (1/10, 9/10), label 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": 1.5}, "alpha must be from 0 to 1, not 1.5"),
        ({"beta": -1}, "beta must be at least 0, not -1"),
        ({"temperature": 0}, "temperature must be above 0, not 0"),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(InputError, match=words):
        distillation_loss(**options)


def test_a_kernel_starts_where_float32_can_tell_distances_apart():
    # A 3×3 window of 64 channels: 576 terms, and distances about as large.
    y = np.array([-400, -600, -800], np.float32).reshape(3, 1, 1, 1)
    kernel: Any = _Kernel(576, None)
    variables = jax.jit(kernel.init, static_argnums=2)(jax.random.key(0), y, True)
    assert variables["params"]["log_width"] == 0

    @jax.jit
    def captured(variables):
        kinds = ["batch_stats", "intermediates"]
        return kernel.apply(variables, y, True, mutable=kinds, capture_intermediates=True)[1]

    mapped = np.ravel(captured(variables)["intermediates"]["Conv_0"]["__call__"][0])
    weight = variables["params"]["Conv_0"]["kernel"].item()
    # The exponent is rounded, 2^-24 of its size of 1, and so are its exponential and the product.
    expected = np.exp(np.array([-400, -600, -800]) / 576) * weight
    np.testing.assert_allclose(mapped, expected, rtol=2**-21)
    assert np.exp(np.float32(-400)) == 0


def test_outputs_are_those_of_both_networks_and_of_the_student_alone():
    def own(variables, name):
        return {collection: tree[name] for collection, tree in variables.items()}

    @functools.partial(jax.jit, compiler_options=QUICK)
    def outputs(variables):
        options: Any = {"train": True, "mutable": ["batch_stats"]}
        alone = {
            name: model.apply(own(variables, name), IMAGES, **options)
            for name, model in (("student", STUDENT), ("teacher", TEACHER))
        }
        evaluated = MODEL.apply(variables, IMAGES), STUDENT.apply(own(variables, "student"), IMAGES)
        return MODEL.apply(variables, IMAGES, **options), alone, evaluated

    (out, updates), alone, evaluated = outputs(variables())
    for name, got in (("student", out.student), ("teacher", out.teacher)):
        expected, stats = alone[name]
        # The same operations; compiled beside others, they may be fused in another way.
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
        ours = updates["batch_stats"][name]
        assert jax.tree.structure(ours) == jax.tree.structure(stats["batch_stats"])
    assert float(out.distance) > 0
    # Of the three convolutions two are adders, each with a map of its own and one of the teacher.
    maps = [name for name in variables()["params"] if name.startswith("_Kernel")]
    assert len(maps) == 4
    np.testing.assert_array_equal(*evaluated)
    student = own(variables(), "student")
    assert count(MODEL.apply, variables(), IMAGES) == count(STUDENT.apply, student, IMAGES)


@pytest.mark.parametrize(
    "arithmetic", [of_product(adder_conv, kernel_name="adder_kernel"), SHIFT_ADD]
)
def test_a_student_is_known_by_its_weights(arithmetic):
    model = Distillation(SmallCNN(arithmetic=arithmetic, widths=WIDTHS), TEACHER)
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)["params"]
    assert len([name for name in shapes if name.startswith("_Kernel")]) == 4


@pytest.mark.slow
def test_the_teacher_learns_from_labels_alone_and_the_student_from_all():
    @functools.partial(jax.jit, compiler_options=QUICK)
    @jax.jacrev
    def gradients(params):
        given = variables() | {"params": params}
        out, _ = MODEL.apply(given, IMAGES, train=True, mutable=["batch_stats"])
        own = cross_entropy(out.teacher, LABELS)
        return jnp.stack([distillation_loss()(out, LABELS), own, out.distance])

    jacobian = gradients(variables()["params"])
    whole, own, of_maps = (jax.tree.map(lambda leaf, i=i: leaf[i], jacobian) for i in range(3))
    for got, expected in zip(
        jax.tree.leaves(whole["teacher"]), jax.tree.leaves(own["teacher"]), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    assert not any(leaf.any() for leaf in jax.tree.leaves(of_maps["teacher"]))
    assert not any(leaf.any() for leaf in jax.tree.leaves(own["student"]))
    for layer in ("AdderConv_0", "AdderConv_1"):
        assert of_maps["student"][layer]["adder_kernel"].any()
    widths = [maps["log_width"] for name, maps in of_maps.items() if name.startswith("_Kernel")]
    assert all(width != 0 for width in widths)


@pytest.mark.slow
def test_a_step_and_the_evaluation_are_the_usual_ones():
    optimizer = optax.sgd(0.1)
    params, stats = variables()["params"], variables()["batch_stats"]
    state = State(jnp.int32(0), params, stats, optimizer.init(params), jax.random.key(0))
    step = train_step(MODEL, optimizer, distillation_loss(), metrics=student_accuracy)
    after, metrics = jax.eval_shape(step, state, (IMAGES, LABELS))
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert set(metrics) == {"loss", "accuracy", "nonfinite"}
    assert set(jax.eval_shape(evaluation(MODEL), state, (IMAGES, LABELS))) == {"loss", "accuracy"}


@pytest.mark.parametrize(
    ("student", "teacher", "words"),
    [
        (TEACHER, TEACHER, "a student with adder convolutions, not one without"),
        (STUDENT, STUDENT, "a teacher whose convolutions have a kernel, not adder_kernel"),
        (STUDENT, SmallCNN(widths=(2, 3, 4)), r"one architecture, not .*\(1, 2, 2, 4\)"),
        (SmallCNN(arithmetic=BINARY), TEACHER, "not one without"),
    ],
)
def test_networks_that_do_not_fit_are_named(student, teacher, words):
    with pytest.raises(InputError, match=words):
        jax.eval_shape(Distillation(student, teacher).init, jax.random.key(0), IMAGES[:1])
