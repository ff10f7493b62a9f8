"""Faster R-CNN and FCOS learn eight pictures by heart, the latter in adders as well."""

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
@pytest.mark.parametrize("kind", ["faster", "fcos", "fcos-adder"])
def test_eight_pictures_are_learnt(kind, original_data):
    """FCOS's finest level has a point every 8 pixels, and few in platelets of 10: cells count."""
    height, width, steps, rate = {
        "faster": (120, 160, 80, 3e-3),
        "fcos": (120, 160, 120, 3e-3),
        "fcos-adder": (168, 224, 100, 5e-3),
    }[kind]
    options = OF_ADDERS if kind == "fcos-adder" else {}
    resize = Resize(height, width, "stretch")
    (records,) = voc_records(original_data / "bccd" / "BCCD", splits=["train"], resize=resize)
    pictures, objects = records.gather(range(8))
    images = (pictures.astype(np.float32) / 255 - 0.5) / 0.25
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
    parts = {
        name: optax.adam(optax.cosine_onecycle_schedule(steps, peak))
        for name, peak in (("float", rate), ("adder", 0.2))
    }
    optimizer = adder_recipe(steps, parts=parts)
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optimizer)
    state = training.init(jax.random.key(0), model, optimizer, images)
    measures: Any = {"loss": total_loss(detector), "metrics": loss_parts(detector)}
    step = jax.jit(training.train_step(model, optimizer, **measures))
    for _ in range(steps):
        state, _ = step(state, (inputs, objects))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    predict = jax.jit(lambda images: detector.detect(model.apply(variables, images)))
    found = average_precision(predict, (images, objects), 3).by_class
    assert (found if kind == "faster" else found[1:]).mean() >= 0.9
