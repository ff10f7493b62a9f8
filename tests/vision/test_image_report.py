"""The report of a run on images, from what `fit` leaves in a folder."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from nnlab.runs.evaluating import Outcome
from nnlab.training.measures import confidences, confident_errors, measure
from nnlab.vision import Dataset, ImageRun, Split, prepared, write_image_report

RNG = np.random.default_rng(0)
NAMES = ("ant", "bee & fly", "cat")
WHOLE = Dataset(
    "small",
    *(Split(RNG.integers(0, 256, (n, 8, 8, 1), np.uint8), np.arange(n) % 3) for n in (30, 12)),
    classes=3,
    class_names=NAMES,
)


@dataclasses.dataclass(frozen=True)
class Config(ImageRun):
    out: str = "runs/x"


def outcome(images, chosen_on):
    """A network that takes the first two test images for the class after theirs."""
    labels = np.asarray(images.test[1])
    logits = 3 * np.eye(3)[(labels + (np.arange(12) < 2)) % 3]
    errors = [
        {
            "example": int(i),
            "true": int(labels[i]),
            "predicted": int(logits[i].argmax()),
            "confidence": float(confidences(logits[[i]])[0]),
        }
        for i in confident_errors(logits, labels, 9)
    ]
    validation = {"accuracy": 0.5} if chosen_on == "validation" else {}
    metrics = {"accuracy": 10 / 12, "loss": 0.5}
    return Outcome(2, chosen_on, metrics, validation, measure(logits, labels), errors)


@pytest.mark.parametrize("chosen_on", ["validation", None])
def test_it_says_who_chose_and_shows_what_is_wrong(tmp_path, capsys, chosen_on):
    validation = 0.2 if chosen_on == "validation" else None
    files = tuple(f"pets/{number}.png" for number in range(12)) if validation else ()
    images = prepared(WHOLE._replace(test_files=files), validation=validation)
    figures = {"train_loss": 1.0, "train_accuracy": 0.5, "seconds": 1.0}
    evaluated = "validation" if validation else "test"
    figures |= {f"{evaluated}_loss": 1.0, f"{evaluated}_accuracy": 0.5}
    if validation:
        figures |= {"learning_rate": 0.1, "train_gradient_norm": 2.0}
    with Config(out=str(tmp_path / "run")).open(notes=images.notes) as record:
        with record.folder.metrics("CNN") as line:
            for step in (1, 2):
                line(step=step, **figures)
        record.folder.add_measures("CNN", outcome(images, chosen_on).as_json())
        write_image_report(record, images, table=[{"network": "CNN", "n": 1}])
    text = record.folder.report.read_text()
    for part in (
        "bee &amp; fly",
        "Confusion",
        "Accuracy by confidence",
        "Wrong predictions of CNN",
    ):
        assert part in text
    assert text.count("data:image/png") >= 2  # the two pictures
    assert [f"pets/{number}.png" in text for number in range(3)] == [bool(files)] * 2 + [False]
    says = {
        "validation": "the best on 6 validation images, which no step has seen; its 12 test images",
        "test": "the best on the 12 test images themselves, which flatters it",
        None: "the last epoch, 2; no epoch was chosen",
    }
    assert [part in text for part in says.values()] == [key == chosen_on for key in says]
    assert ("The learning rate of CNN is not known" in text) == (validation is None)
    assert ("Learning rate and gradient" in text) == (validation is not None)
    assert "83.33" in text and "Report: " in capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["measures"]["CNN"]["test"]["confusion"] == [[3, 1, 0], [0, 3, 1], [0, 0, 4]]


def test_pictures_are_those_of_the_data_set():
    for options in ({}, {"border": (12, 12), "border_first": True}):
        images = prepared(WHOLE, **options)
        pictures = images.preparation.pixels(images.test[0])
        inner = pictures[:, 2:10, 2:10] if options else pictures
        np.testing.assert_array_equal(inner, WHOLE.test.images)
    assert isinstance(images.test[0], jax.Array)


def test_a_run_without_networks_has_a_report_of_its_images(tmp_path):
    images = prepared(WHOLE)
    with Config(out=str(tmp_path / "run")).open(notes=images.notes) as record:
        write_image_report(record, images)
    assert "<h2>Images</h2>" in record.folder.report.read_text()
