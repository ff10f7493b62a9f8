"""From a name to arrays: what is prepared, what is recorded of it, and quick looks."""

import dataclasses
import inspect
import json
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nnlab.errors import InputError
from nnlab.runs import Run
from nnlab.vision import (
    Dataset,
    ImageRun,
    Preparation,
    Resize,
    Split,
    image_run,
    load,
    prepared,
)
from nnlab.vision.transforms import pad_to, standardized

RNG = np.random.default_rng(0)
GREY = Dataset(
    "grey",
    *(Split(RNG.integers(0, 256, (n, 8, 8, 1), np.uint8), np.arange(n) % 3) for n in (9, 6)),
    classes=3,
    class_names=("a", "b", "c"),
)


@dataclasses.dataclass(frozen=True)
class Config(ImageRun):
    out: str = "runs/x"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pets")
    for name, size in (("cat", (9, 7)), ("dog", (6, 8))):
        (root / name).mkdir()
        for number in range(10):
            pixels = RNG.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_images_are_standardised_and_framed(folder):
    config = Config(dataset=f"folder:{folder}", image_size=8)
    train, test = standardized(load(config.dataset, resize=Resize(8, 8)))
    images = config.images(border=(12, 11))
    for found, expected in ((images.train, train), (images.test, test)):
        np.testing.assert_array_equal(found[0], pad_to(expected[0], 12, 11))
        np.testing.assert_array_equal(found[1], expected[1])
    assert images.classes == 2 and images.class_names == ("cat", "dog")


def test_a_black_border_counts_in_mean_and_deviation():
    framed = np.asarray(pad_to(GREY.train.images, 12, 12))
    images = prepared(GREY, border=(12, 12), border_first=True, colour=True)
    mean, std = framed.mean() / 255, framed.std() / 255
    expected = np.repeat((framed / 255 - mean) / std, 3, axis=-1)
    np.testing.assert_allclose(images.train[0], expected, atol=1e-5)
    assert images.preparation.shape == (12, 12, 3)


def test_notes_make_the_same_images_again_also_on_the_host():
    border: dict[str, Any] = {"border": (12, 12)}
    choices: list[dict[str, Any]] = [{}, border, {**border, "border_first": True}]
    for options in choices:
        images = prepared(GREY, colour=True, **options)
        notes = json.loads(json.dumps(images.notes))
        assert notes["classes"] == ["a", "b", "c"]
        again = Preparation.of_notes(notes["images"])
        assert again == images.preparation
        np.testing.assert_array_equal(again(GREY.test.images), images.test[0])
        np.testing.assert_array_equal(again.on_host(GREY.test.images), images.test[0])


@pytest.mark.parametrize("change", [{"mean": []}, {"sharpen": 1}, {"channels": 3}])
def test_notes_of_another_nnlab(change):
    notes = prepared(GREY).notes["images"] | change
    with pytest.raises(InputError, match=r"^images are to be prepared by \{"):
        Preparation.of_notes(notes)


def test_a_quick_look_takes_some_images_at_random():
    images, again = (prepared(GREY, train_images=5) for _ in range(2))
    assert len(images.train[1]) == 5 and len(images.test[1]) == 6
    np.testing.assert_array_equal(again.train[0], images.train[0])
    drawn = [np.flatnonzero((x == GREY.train.images).all((1, 2, 3))) for x in stored(images)]
    assert len({int(i) for (i,) in drawn}) == 5
    np.testing.assert_array_equal(GREY.train.labels[np.ravel(drawn)], images.train[1])
    with pytest.raises(InputError, match="--train-images must be at most the 9 there are, not 10"):
        prepared(GREY, train_images=10)


def stored(images):
    """The bytes that became the training images, whose own statistics they have."""
    x = np.asarray(images.train[0])
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-5)
    how = images.preparation
    return np.rint((x * how.std + how.mean) * 255).astype(np.uint8)


def test_a_large_folder_is_streamed(folder, monkeypatch):
    config = Config(dataset=f"folder:{folder}", image_size=8, image_fit="stretch", train_images=12)
    memory = config.images(stream=None)
    assert memory.arrays is not None and memory.train[0].shape == (12, 8, 8, 3)
    monkeypatch.setattr(image_run, "LARGE", 4 * 16 * 8 * 8 * 3 - 1)
    images = config.images(stream=None)
    assert images.arrays is None and images.class_names == ("cat", "dog")
    assert images.preparation == memory.preparation
    np.testing.assert_array_equal(images.test[0], memory.test[0])
    stream = images.stream(12, seed=0)
    batch, labels = next(stream.batches())
    order = np.lexsort(batch.reshape(12, -1).T), np.lexsort(np.reshape(memory.train[0], (12, -1)).T)
    np.testing.assert_array_equal(batch[order[0]], memory.train[0][order[1]])
    np.testing.assert_array_equal(labels[order[0]], memory.train[1][order[1]])
    assert images.feed(5).steps_per_epoch == 2
    with pytest.raises(InputError, match="are streamed, expected them in memory"):
        _ = images.train


def test_classes_without_names_are_numbers():
    images = RNG.integers(0, 256, (4, 2, 2, 1), np.uint8)
    split = Split(images, np.array([0, 1, 2, 1], np.int32))
    assert prepared(Dataset("own", split, split, 3)).class_names == ("0", "1", "2")


@pytest.mark.parametrize(("field", "value"), [("test_share", 0.0), ("image_size", 0)])
def test_bad_fields(field, value):
    with pytest.raises(InputError, match=f"^--{field.replace('_', '-')} must be "):
        Config(**{field: value})


@pytest.mark.parametrize("streamed", [False, True])
def test_validation_takes_its_share_of_each_class(folder, streamed):
    """Mean and deviation are of the images that are trained on, and the test stays as it is."""
    name = f"folder:{folder}"
    whole = Config(dataset=name, image_size=8).images()
    config = Config(dataset=name, image_size=8, validation=0.25)
    images = config.images(stream=streamed)
    assert images.counts == {"train": [6, 6], "validation": [2, 2], "test": [2, 2]}
    assert images.validation is not None
    batch = next(images.stream(12).batches()) if streamed else images.train
    np.testing.assert_allclose(np.mean(batch[0]), 0, atol=1e-5)
    for found, there in (
        (images.test, whole.test),
        (images.validation, whole.train),
        (batch, whole.train),
    ):
        pictures = {each.tobytes() for each in images.preparation.pixels(found[0])}
        assert pictures <= {each.tobytes() for each in whole.preparation.pixels(there[0])}
        assert len(pictures) == len(found[1])
    assert config.protocol(images)["validation"] is images.validation
    again: Any = config.images(stream=not streamed)
    np.testing.assert_array_equal(again.validation[0], images.validation[0])


def test_help_names_each_field_and_its_type():
    own = [
        each.name for each in dataclasses.fields(ImageRun) if each.name not in Run.__annotations__
    ]
    assert re.findall(r"^        (\w+): ", ImageRun.__doc__ or "", re.MULTILINE)[: len(own)] == own
    assert "validation: 'Share | None' = None" in str(inspect.signature(ImageRun))
