"""Masks as users have them: numbers stay numbers."""

import numpy as np
import pytest
from PIL import Image

from nnlab.errors import InputError
from nnlab.vision.datasets.masks import (
    mask_records,
    nuclei_records,
    read_mask,
    resized_mask,
    restored_mask,
)
from nnlab.vision.pictures import Resize

MASK = np.array([[0, 1, 2, 255], [0, 1, 1, 255], [2, 2, 0, 0]], np.uint8)


def _save(file, array, mode=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    if mode == "P":
        picture.putpalette([value for number in range(256) for value in (255 - number, 0, number)])
    picture.save(file)


def _set(root, masks, mode=None):
    for number, mask in enumerate(masks):
        _save(root / "images" / f"{number}.png", np.zeros((*mask.shape[:2], 3), np.uint8))
        _save(root / "masks" / f"{number}.png", mask, mode)
    return root


def test_numbers_are_read_as_they_are(tmp_path):
    deep = MASK.astype(np.uint16) * 3
    for name, array, mode, expected in (
        ("grey.png", MASK, None, MASK),
        ("palette.png", MASK, "P", MASK),
        ("deep.png", deep, None, deep),
        ("same.png", np.repeat(MASK[..., None], 3, -1), None, MASK),
    ):
        _save(tmp_path / name, array, mode)
        np.testing.assert_array_equal(read_mask(tmp_path / name), expected)
    Image.fromarray(MASK > 0).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "bits.png"), MASK > 0)


def test_colours_by_a_table(tmp_path):
    colours = {(0, 0, 0): 0, (128, 64, 128): 1, (64, 0, 64): 255}
    pixels = np.array([[[0, 0, 0], [128, 64, 128], [64, 0, 64]]], np.uint8)
    _save(tmp_path / "a.png", pixels)
    assert read_mask(tmp_path / "a.png", colours).tolist() == [[0, 1, 255]]
    with pytest.raises(InputError, match=r"colour \(64, 0, 64\), which the table lacks"):
        read_mask(tmp_path / "a.png", {(0, 0, 0): 0, (128, 64, 128): 1})
    with pytest.raises(InputError, match="is in colour"):
        read_mask(tmp_path / "a.png")


def test_records_ignore_255(tmp_path):
    train, test = mask_records(_set(tmp_path, [MASK] * 5, "P"))
    assert (len(train), len(test), train.classes) == (4, 1, 3)
    image, mask = train[0]
    assert image.shape == (3, 4, 3) and (mask == MASK).all() and mask.dtype == np.uint8
    assert train.gather([0, 1])[1].shape == (2, 3, 4)


def test_black_and_white_masks_are_two_classes(tmp_path):
    """In a set of 0 and 255 alone 255 is no ignored pixel."""
    [records, _] = mask_records(_set(tmp_path, [np.where(MASK > 0, 255, 0).astype(np.uint8)] * 2))
    assert records.classes == 2 and (records[0][1] == (MASK > 0)).all()


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_resizing_makes_no_new_numbers(tmp_path, fit):
    wide = np.zeros((20, 40), np.uint8)
    wide[4:16, 8:28] = 7
    picture = np.where(wide[..., None] == 7, 255, 0).astype(np.uint8).repeat(3, -1)
    for name in "ab":
        _save(tmp_path / "images" / f"{name}.png", picture)
        _save(tmp_path / "masks" / f"{name}.png", wide)
    [records, _] = mask_records(tmp_path, resize=Resize(64, 48, fit))
    image, mask = records[0]
    inside = mask != 255
    assert set(np.unique(mask)) <= {0, 7, 255} and inside.all() == (fit != "pad")
    same = (image[..., 0] > 127) == (mask == 7)
    assert same[inside].mean() > 0.98
    assert (resized_mask(wide, Resize(20, 40)) == wide).all()


@pytest.mark.parametrize(
    ("masks", "names", "words"),
    [
        ([MASK, MASK[:2]], None, "and .* 4 by 2, expected one size"),
        ([MASK, MASK], ["one", "two"], "has a pixel of class 2, expected 0 to 1"),
        ([MASK], None, "there are 1 pictures"),
    ],
)
def test_masks_that_do_not_fit(tmp_path, masks, names, words):
    with pytest.raises(InputError, match=words):
        mask_records(_set(tmp_path, masks), class_names=names)


def test_masks_that_lack_or_differ(tmp_path):
    _set(tmp_path, [MASK] * 2)
    _save(tmp_path / "masks" / "1.png", MASK[:, :2])
    with pytest.raises(InputError, match=r"2 by 3 pixels and .* 4 by 3, expected the same"):
        mask_records(tmp_path)
    (tmp_path / "masks" / "1.png").unlink()
    with pytest.raises(InputError, match=r"1\.png has no mask in"):
        mask_records(tmp_path)
    with pytest.raises(InputError, match=r"there is no folder .*labels"):
        mask_records(tmp_path, masks="labels")


def test_one_mask_an_object(tmp_path):
    for name in ("a", "b"):
        _save(tmp_path / name / "images" / "x.png", np.zeros((4, 5, 4), np.uint8))
        for number, pixels in enumerate([(0, 0), (3, 4)]):
            mask = np.zeros((4, 5), np.uint8)
            mask[pixels] = 255
            _save(tmp_path / name / "masks" / f"{number}.png", mask)
    train, test = nuclei_records(tmp_path, splits=[["a"], ["b"]])
    assert train[0][1].sum() == 2 and train.classes == 2 and len(test) == 1
    objects = train.instances(0)
    assert objects[0, 0] == 1 and objects[3, 4] == 2 and objects.max() == 2


@pytest.mark.slow
def test_nuclei(original_data):
    root = original_data / "nuclei-subset"
    names = [(root / f"{split}.txt").read_text().split() for split in ("train", "test")]
    train, test = nuclei_records(root / "stage1_train", splits=names)
    counts = [sum(len(masks) for masks in each.masks) for each in (train, test)]
    assert [len(train), len(test), *counts] == [120, 40, 3458, 1003]
    image, mask = test[0]
    assert image.shape[:2] == mask.shape and set(np.unique(mask)) == {0, 1}
    assert ((test.instances(0) > 0) == mask).all()


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_a_mask_comes_back_to_the_size_of_its_picture(fit):
    mask = np.arange(4 * 6, dtype=np.uint8).reshape(4, 6)
    resize = Resize(8, 8, fit)
    found = restored_mask(resized_mask(mask, resize), resize, mask.shape)
    if fit == "crop":  # two of six columns are cut off
        assert (found[:, [0, -1]] == 255).all()
        found, mask = found[:, 1:-1], mask[:, 1:-1]
    np.testing.assert_array_equal(found, mask)
