"""Functions of several arrays refuse those that JAX or NumPy would repeat to fit, or cut."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab import training
from nnlab.classics.autoencoder import reconstruction_error
from nnlab.errors import InputError
from nnlab.figures.features import class_geometry, class_plane
from nnlab.figures.panels import Line, Panel, figure_panels
from nnlab.models import NextEvent, SmallCNN
from nnlab.ops.adaptive_pooling import spatial_pyramid_pool
from nnlab.sequences.episode_scores import bits_per_sequence, wholly_right
from nnlab.series.log_detector import surprises
from nnlab.series.logs import sessions_by_name
from nnlab.series.next_value import negative_log_likelihood
from nnlab.training.distillation import Outputs
from nnlab.vision import standardize


def of(*shape, dtype: Any = np.float32) -> Any:
    return np.zeros(shape, dtype)


INTS = of(1, dtype=np.int32)
WRONG = {
    "cross entropy": lambda: training.cross_entropy(of(4, 3), INTS),
    "accuracy": lambda: training.accuracy(of(4, 3), of(4, 1)),
    "distillation": lambda: training.distillation_loss()(
        Outputs(of(4, 3), of(4, 1), jnp.zeros(())), of(4)
    ),
    "bits, targets": lambda: bits_per_sequence(of(2, 5, 3), (of(2, 5, 1), of(2, 5))),
    "bits, masks": lambda: bits_per_sequence(of(2, 5, 3), (of(2, 5, 3), of(1, 5))),
    "wholly right": lambda: wholly_right(of(2, 5, 3), (of(2, 5, 3), of(2, 1))),
    "next value": lambda: negative_log_likelihood(of(4, 2), of(1)),
    "reconstruction": lambda: reconstruction_error(of(4, 3), of(1, 3)),
    "surprises": lambda: surprises(NextEvent(2), {}, of(4, 3, dtype=np.int32), INTS),
    "sessions": lambda: sessions_by_name(["blk_1", "blk_2"], [0], "blk_."),
    "plane": lambda: class_plane(of(4, 3), [0, 1]),
    "geometry": lambda: class_geometry(of(4, 3), [0, 1], of(2, 3), [0, 1]),
    "panels": lambda: figure_panels([Panel("", "", "", [Line("", [1.0, 2.0], [1.0])])]),
    "standardize": lambda: standardize(of(2, 2, 2, 1), of(3), of(3)),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_other_shapes_are_refused(call):
    with pytest.raises(InputError, match="expected"):
        call()


def test_an_evaluation_compares_images_and_labels():
    model, data = SmallCNN(classes=3), (of(4, 8, 8, 1), INTS)
    evaluate = training.evaluation(model, lambda *_: jnp.zeros(()), metrics=lambda *_: {})
    nothing: Any = None
    state = training.State(*[nothing] * 5)
    with pytest.raises(InputError, match=r"4 .* 1"):
        jax.eval_shape(evaluate, state, data)


def test_no_images_give_no_outputs():
    none = jax.ShapeDtypeStruct((0, 8, 8, 1), jnp.float32)
    model = SmallCNN(classes=3)
    logits = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], none)
    assert logits.shape == (0, 3)
    assert jax.eval_shape(spatial_pyramid_pool, none).shape == (0, 21)
