"""From a name to arrays: what is prepared, what is recorded of it, and quick looks."""

import dataclasses
import json
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nnlab.errors import InputError
from nnlab.vision import Dataset, ImageRun, Preparation, Split, image_run, load, prepared
from nnlab.vision.transforms import pad_to, standardized

RNG = np.random.default_rng(0)


@dataclasses.dataclass(frozen=True)
class Config(ImageRun):
    out: str = "runs/x"
    dataset: str = "digits"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pets")
    for name, size in (("cat", (9, 7)), ("dog", (6, 8))):
        (root / name).mkdir()
        for number in range(10):
            pixels = RNG.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_images_are_standardised_and_framed():
    train, test = standardized(load("digits"))
    images = Config().images()
    for found, expected in ((images.train, train), (images.test, test)):
        assert all((a == b).all() for a, b in zip(found, expected, strict=True))
    images = Config().images(border=(12, 12))
    np.testing.assert_array_equal(images.test[0], pad_to(test[0], 12, 12))
    assert images.classes == 10 and images.class_names[7] == "7"


def test_a_black_border_counts_in_mean_and_deviation():
    dataset = load("digits")
    split = Split(np.asarray(pad_to(dataset.train.images, 12, 12)), dataset.train.labels)
    framed = dataset._replace(train=split, test=split)
    images = prepared(dataset, border=(12, 12), border_first=True, colour=True)
    grey = standardized(framed)[0][0]
    np.testing.assert_array_equal(images.train[0], jnp.repeat(grey, 3, axis=-1))
    assert images.preparation.shape == (12, 12, 3)


def test_notes_make_the_same_images_again_also_on_the_host():
    dataset = load("digits")
    border: dict[str, Any] = {"border": (12, 12)}
    choices: list[dict[str, Any]] = [{}, border, {**border, "border_first": True}]
    for options in choices:
        images = prepared(dataset, colour=True, **options)
        notes = json.loads(json.dumps(images.notes))
        assert notes["classes"] == list("0123456789")
        again = Preparation.of_notes(notes["images"])
        assert again == images.preparation
        np.testing.assert_array_equal(again(dataset.test.images), images.test[0])
        np.testing.assert_array_equal(again.on_host(dataset.test.images), images.test[0])


@pytest.mark.parametrize("change", [{"mean": []}, {"sharpen": 1}, {"channels": 3}])
def test_notes_of_another_nnlab(change):
    notes = prepared(load("digits")).notes["images"] | change
    with pytest.raises(InputError, match=r"^images are to be prepared by \{"):
        Preparation.of_notes(notes)


def test_a_quick_look_takes_some_images_of_all_classes():
    images = Config(train_images=100).images()
    whole = Config().images()
    assert len(images.train[1]) == 100 and len(images.test[1]) == 360
    assert len(set(images.train[1].tolist())) == 10
    again = Config(train_images=100).images()
    np.testing.assert_array_equal(again.train[0], images.train[0])
    rows = np.asarray(whole.preparation.std) / np.asarray(images.preparation.std)
    assert rows != 1  # statistics are those of the images that are trained on
    with pytest.raises(InputError, match="--train-images must be at most the 1437 there are"):
        Config(train_images=1438).images()


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
