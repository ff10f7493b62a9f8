"""Faster R-CNN and FCOS learn eight pictures by heart, in floats and in adders."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

from nnlab import training
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.optim import adder_recipe
from nnlab.vision.datasets.voc import voc_records
from nnlab.vision.detection.detectors import average_precision, loss_parts, total_loss
from nnlab.vision.detection.faster_rcnn import FasterRCNN, FasterRCNNDetector
from nnlab.vision.detection.fcos import FCOS, FCOSDetector
from nnlab.vision.pictures import Resize

SMALL: Any = {
    **{"classes": 3, "stage_sizes": (1, 1, 1, 1), "bottleneck": False},
    **{"features": 16, "neck_features": 32},
}
# As in the adder detection paper: a float head, bottom-up first, shortcuts in the neck.
OF_ADDERS: Any = {"arithmetic": ADDER, "head": FLOAT, "shortcuts": True, "neck_kind": "r-pafpn"}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, OF_ADDERS], ids=["float", "adder"])
@pytest.mark.parametrize("kind", ["faster", "fcos"])
def test_eight_pictures_are_learnt(kind, options, original_data):
    height, width, steps = (120, 160, 50) if kind == "faster" else (168, 224, 80)
    resize = Resize(height, width, "stretch")
    (records,) = voc_records(original_data / "bccd" / "BCCD", splits=["train"], resize=resize)
    pictures, objects = records.gather(range(8))
    images = pictures.astype(np.float32) / 64 - 2
    if kind == "faster":
        model = FasterRCNN(
            **SMALL | options,
            **{"hidden": 128, "before_nms": (200, 200), "after_nms": (200, 100), "sampled": 64},
            anchor_sizes=((16,), (32,), (64,), (128,), (256,)),
        )
        detector: Any = FasterRCNNDetector((height, width))
        inputs: Any = images, objects
    else:
        model = FCOS(**SMALL | options, convs=2, groups=8)
        detector, inputs = FCOSDetector((height, width)), images
    rate = optax.cosine_onecycle_schedule(steps, 5e-3)
    of_adders = optax.adam(optax.cosine_onecycle_schedule(steps, 5e-2))
    optimizer = adder_recipe(steps, parts={"float": optax.adam(rate), "adder": of_adders})
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optimizer)
    state = training.init(jax.random.key(0), model, optimizer, images)
    measures: Any = {"loss": total_loss(detector), "metrics": loss_parts(detector)}
    step = jax.jit(training.train_step(model, optimizer, **measures))
    for _ in range(steps):
        state, _ = step(state, (inputs, objects))
    state = training.fresh_statistics(model, images, 8)(state)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    predict = jax.jit(lambda images: detector.detect(model.apply(variables, images)))
    assert average_precision(predict, (images, objects), 3).mean >= 0.9
