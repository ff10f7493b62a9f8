"""Pictures with boxes as users have them: each row of what goes wrong elsewhere is a test."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnlab.errors import InputError
from nnlab.vision.datasets.coco import coco_records
from nnlab.vision.datasets.labelled import Dropped
from nnlab.vision.datasets.voc import voc_records
from nnlab.vision.datasets.yolo_text import yolo_records
from nnlab.vision.detection.anchors import YOLO_V3_TINY, clustered_anchors, mean_best_iou
from nnlab.vision.pictures import Resize

SIZE = (40, 20)  # width and height


def _picture(file, size=SIZE, box=None, orientation=None, mode="L"):
    """Draw a picture that is black but for a white box."""
    pixels = np.zeros((size[1], size[0]), np.uint8)
    if box is not None:
        x1, y1, x2, y2 = box
        pixels[y1:y2, x1:x2] = 255
    picture = Image.fromarray(pixels).convert(mode)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, exif=exif)


def _xml(file, objects, size=SIZE, name="other.jpg"):
    """Write what VOC has of (name, xmin, ymin, xmax, ymax) and what else there is."""
    items = "".join(
        f"<object><name>{label}</name>{more}<bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
        f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for label, a, b, c, d, more in [(*each, "")[:6] for each in objects]
    )
    sizes = (
        "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"<annotation><filename>{name}</filename>{sizes}{items}</annotation>")


@pytest.fixture
def cells(tmp_path):
    """Four pictures: good, without an XML file, with one without objects, and with bad boxes."""
    for name in "abcd":
        _picture(tmp_path / f"{name}.png")
    hard = "<difficult>1</difficult>"
    _xml(tmp_path / "a.xml", [("red", 3, 3, 12, 10), ("white", "5.5", "2.25", "9.5", "7", hard)])
    _xml(tmp_path / "c.xml", [])
    _xml(
        tmp_path / "d.xml",
        [
            ("red", 5, 5, 5, 9),  # no width
            ("red", 12, 3, 6, 9),  # swapped
            ("red", 50, 3, 60, 9),  # outside
            ("red", -3, 15, 10, 30),  # partly
        ],
    )
    return tmp_path


def _all(records):
    """The records of all splits by the name of their picture."""
    return {Path(file).stem: each[i] for each in records for i, file in enumerate(each.files)}


def test_voc_beside_the_pictures(cells):
    records = voc_records(cells)
    assert [len(each) for each in records] == [3, 1]
    found = _all(records)
    image, boxes = found["a"]
    assert image.shape == (20, 40, 1) and records[0].class_names == ("red", "white")
    assert boxes.boxes.tolist() == [[2, 2, 12, 10], [4.5, 1.25, 9.5, 7]]
    assert boxes.classes.tolist() == [0, 1] and boxes.difficult.tolist() == [False, True]
    for name in "bc":  # without boxes: background, in arrays of the same shape
        assert found[name][1].boxes.shape == (2, 4) and not found[name][1].mask.any()
    assert found["d"][1].boxes.tolist() == [[0, 14, 10, 20], [0, 0, 0, 0]]
    dropped = np.sum([each.dropped for each in records], axis=0)
    assert Dropped(*dropped.tolist()) == Dropped(degenerate=2, outside=1, cut=1)
    images, batch = records[0].gather([0, 2])
    assert images.shape == (2, 20, 40, 1) and batch.boxes.shape == (2, 2, 4)


def test_what_voc_coordinates_count(cells):
    shifted = _all(voc_records(cells, corner="shift"))["a"][1]
    assert shifted.boxes[0].tolist() == [2, 2, 11, 9]
    assert _all(voc_records(cells, corner="none"))["a"][1].boxes[0].tolist() == [3, 3, 12, 10]


def test_lists_of_splits_and_classes_absent_from_one(cells):
    lists = cells / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nd 1\n")
    (lists / "val.txt").write_text("b.png\nc\n")
    train, val = voc_records(cells, splits=("train", "val"))
    assert train.counts.tolist() == [2, 1] and val.counts.tolist() == [0, 0]
    assert val.class_names == train.class_names and val.most == train.most
    with pytest.raises(InputError, match=r"there is no .*test\.txt"):
        voc_records(cells)
    with pytest.raises(InputError, match="class 'white', expected one of red"):
        voc_records(cells, splits=("train", "val"), class_names=["red"])


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_boxes_follow_the_size(tmp_path, fit):
    box = (8, 4, 28, 16)
    for name in "ab":
        _picture(tmp_path / f"{name}.png", box=box)
        _xml(tmp_path / f"{name}.xml", [("box", 9, 5, 28, 16)])
    for height, width in ((64, 64), (20, 60)):
        [records, _] = voc_records(tmp_path, resize=Resize(height, width, fit))
        image, boxes = records[0]
        rows, columns = (np.flatnonzero((image[..., 0] > 127).any(axis)) for axis in (1, 0))
        edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert image.shape == (height, width, 1)
        np.testing.assert_allclose(boxes.boxes[0], edges, atol=0.51)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    """Boxes drawn upright stay; those of the picture as stored, which the size tells, turn."""
    turned = orientation > 4
    for name in "ab":
        _picture(tmp_path / f"{name}.jpg", box=(8, 4, 24, 12), orientation=orientation)
    upright = (SIZE[1], SIZE[0]) if turned else SIZE
    _xml(tmp_path / "a.xml", [("box", 9, 5, 24, 12), ("box", 24, 5, 9, 12)], size=SIZE)
    _xml(tmp_path / "b.xml", [("box", 3, 3, 9, 9)], size=upright)
    found = _all(voc_records(tmp_path))
    image, boxes = found["a"]
    assert image.shape == (upright[1], upright[0], 1)
    assert boxes.mask.sum() == 1  # the swapped one is dropped, turned or not
    if turned or orientation == 1:
        bright = np.argwhere(image[..., 0] > 127)
        x1, y1, x2, y2 = boxes.boxes[0]
        assert bright.min(0).tolist() == [y1, x1] and (bright.max(0) + 1).tolist() == [y2, x2]
    assert found["b"][1].boxes[0].tolist() == [2, 2, 9, 9]


def test_files_of_every_kind(tmp_path):
    """Grey, palette, transparent and 16-bit pictures give one shape."""
    for number, mode in enumerate(["L", "RGB", "P", "RGBA", "LA"]):
        _picture(tmp_path / f"{number}.png", box=(0, 0, 20, 20), mode=mode)
    deep = np.full((20, 40), 1000, np.uint16)
    Image.fromarray(deep).save(tmp_path / "5.png")
    _xml(tmp_path / "0.xml", [("box", 1, 1, 9, 9)])
    found = _all(voc_records(tmp_path))
    assert {image.shape for image, _ in found.values()} == {(20, 40, 3)}
    assert (found["5"][0] == round(1000 / 257)).all()


def test_truncated_pictures_are_named_or_left_out(cells, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (20, 40), np.uint8)
    Image.fromarray(noise).save(cells / "b.jpg")
    (cells / "b.jpg").write_bytes((cells / "b.jpg").read_bytes()[:-200])
    (cells / "b.png").unlink()
    (cells / "e.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"1 picture cannot be read: .*e\.jpg is no image"):
        voc_records(cells)
    records = voc_records(cells, skip_unreadable=True)
    assert set(_all(records)) == {"a", "c", "d"}
    assert sum(each.dropped.pictures for each in records) == 2
    assert "Left out: 2 pictures cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotation><object><name>a</name></object></annotation>", "without a name or a box"),
        ("<annotation>", "is no annotation of VOC"),
    ],
)
def test_malformed_xml(cells, text, words):
    (cells / "a.xml").write_text(text)
    with pytest.raises(InputError, match=words):
        voc_records(cells)


def test_boxes_that_are_no_numbers_and_sizes_that_differ(cells):
    _xml(cells / "a.xml", [("red", "", 1, 5, 5)])
    with pytest.raises(InputError, match="expected four finite numbers"):
        voc_records(cells)
    _xml(cells / "a.xml", [("red", 1, 1, 5, 5)], size=(41, 20))
    with pytest.raises(InputError, match="is for a picture of 41 by 20 pixels"):
        voc_records(cells)
    _xml(cells / "a.xml", [("red", 1, 1, 5, 5)], size=(0, 0))
    _picture(cells / "b.png", size=(20, 20))
    with pytest.raises(InputError, match="resize brings them to one"):
        voc_records(cells)


def _yolo(root, lines, names="red\nwhite\n"):
    for number, line in enumerate(lines):
        _picture(root / "images" / f"{number}.png")
        if line is not None:
            (root / "labels").mkdir(exist_ok=True)
            (root / "labels" / f"{number}.txt").write_text(line)
    if names:
        (root / "classes.txt").write_text(names)


def test_yolo(tmp_path):
    _yolo(
        tmp_path, ["1 0.5 0.5 0.25 0.5\n", "", None, "0 0.1 0.1 0.3 0.1 0.2 0.9\n", "0 .5 .5 0 .1"]
    )
    records = yolo_records(tmp_path, seed=1)
    found = _all(records)
    assert found["0"][1].boxes[0].tolist() == [15, 5, 25, 15] and found["0"][1].classes[0] == 1
    assert not found["1"][1].mask.any() and not found["2"][1].mask.any()
    np.testing.assert_allclose(found["3"][1].boxes[0], [4, 2, 12, 18], rtol=1e-6)  # a polygon
    assert sum(each.dropped.degenerate for each in records) == 1


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["1 .5 .5 .2 .2", "2 .5 .5 .2 .2"], "numbers its classes 1 to 2.* subtract 1"),
        (["0 .5 .5 .2 .2", "2 .5 .5 .2 .2"], "class 2, expected 0 to 1; background is no class"),
        (["0 .5 .5 .2", ""], "line 1 of .*0.txt is '0 .5 .5 .2', expected a class"),
        (["red .5 .5 .2 .2", ""], "expected a class"),
    ],
)
def test_yolo_lines_that_are_none(tmp_path, lines, words):
    _yolo(tmp_path, lines)
    with pytest.raises(InputError, match=words):
        yolo_records(tmp_path)


def test_yolo_folders_of_splits_and_names(tmp_path):
    for split, name in (("train", "a"), ("val", "b")):
        _picture(tmp_path / "images" / split / f"{name}.png")
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / f"{name}.txt").write_text("0 .5 .5 .5 .5")
    with pytest.raises(InputError, match="does not name its classes"):
        yolo_records(tmp_path)
    (tmp_path / "data.yaml").write_text("names:\n  0: red\n  1: white\n")
    train, val = yolo_records(tmp_path)
    assert len(train) == len(val) == 1 and train.class_names == ("red", "white")
    assert val.counts.tolist() == [1, 0]


@pytest.fixture
def coco(tmp_path):
    for name in "ab":
        _picture(tmp_path / f"{name}.png")
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 20},
            {"id": 9, "file_name": "b.png"},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [2, 3, 10, 8], "iscrowd": 1},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 5, 5]},
        ],
    }


def test_coco(tmp_path, coco):
    """Ids of categories have gaps; classes are numbered in their order."""
    (tmp_path / "all.json").write_text(json.dumps(coco))
    [records] = coco_records(tmp_path / "all.json", tmp_path)
    assert records.class_names == ("car", "dog")
    boxes = records[0][1]
    assert boxes.boxes.tolist() == [[2, 3, 12, 11], [0, 0, 5, 5]]
    assert boxes.classes.tolist() == [1, 0] and boxes.difficult.tolist() == [True, False]
    assert not records[1][1].mask.any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 1}, "boxes of the picture 1, which it lacks"),
        ({"category_id": 0}, "is of category 0, expected one of 3, 18"),
        ({"bbox": [1, 2, 3]}, "has the box"),
    ],
)
def test_coco_files_that_are_none(tmp_path, coco, change, words):
    coco["annotations"][0] |= change
    (tmp_path / "all.json").write_text(json.dumps(coco))
    with pytest.raises(InputError, match=words):
        coco_records(tmp_path / "all.json", tmp_path)
    (tmp_path / "all.json").write_text("[]")
    with pytest.raises(InputError, match="is no file of COCO's instances"):
        coco_records(tmp_path / "all.json", tmp_path)


@pytest.mark.slow
def test_blood_cells(original_data):
    """BCCD: counts of the data set, and k-means anchors of the train and val lists at 416×416."""
    root = original_data / "bccd" / "BCCD"
    options = {"resize": Resize(416, 416, "stretch"), "corner": "none"}
    splits = voc_records(root, splits=("train", "val", "test"), **options)
    assert [len(each) for each in splits] == [205, 87, 72]
    assert sum(each.dropped.degenerate for each in splits) == 2
    # 4,888 boxes without the two of zero size.
    counts = np.sum([each.counts for each in splits], axis=0)
    assert counts.tolist() == [361, 4153, 372]
    boxes = np.concatenate([each.boxes for split in splits[:2] for each in split.boxes])
    sizes = boxes[:, 2:] - boxes[:, :2]
    three = clustered_anchors(sizes, 3)
    np.testing.assert_allclose(three, [[25, 33], [64, 81], [75, 97]], atol=1)
    assert mean_best_iou(sizes, three) == pytest.approx(0.807, abs=5e-4)
    six = clustered_anchors(sizes, 6, tries=40)
    assert mean_best_iou(sizes, six) == pytest.approx(0.863, abs=1e-3)
    assert mean_best_iou(sizes, YOLO_V3_TINY) == pytest.approx(0.747, abs=5e-4)
    image, _ = splits[0][0]
    assert image.shape == (416, 416, 3)
