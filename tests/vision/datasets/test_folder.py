"""Folders of pictures: which are found, how they are split, and what is refused."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nnlab.data import Stream
from nnlab.errors import InputError
from nnlab.vision import Resize, load, read_picture, record_source
from nnlab.vision.datasets.folder import list_folder

RNG = np.random.default_rng(0)


def put(path, size=(4, 6), colour=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (*size, 3) if colour else size, np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path):
    """Ten grey pictures of cats and five of dogs, and what file managers leave."""
    root = tmp_path / "pets"
    for name, count in (("dog", 5), ("cat", 10)):
        for number in range(count):
            put(root / name / f"{number:02}.png", colour=False)
        (root / name / ".hidden").write_text("x")
    (root / "dog" / "Thumbs.db").write_text("x")
    (root / ".DS_Store").write_text("x")
    return root


def add_what_is_no_picture(folder):
    """Five files: two that are not named as pictures, and three that cannot be read."""
    (folder / "LICENSE.txt").write_text("x")
    (folder / "cat" / "a.txt").write_text("x")
    (folder / "cat" / "a.jpg").write_bytes(b"")
    (folder / "dog" / "a.jpg").write_text("x")
    put(folder / "dog" / "x.png", colour=False)
    damaged = (folder / "dog" / "x.png").read_bytes()
    (folder / "dog" / "x.png").write_bytes(damaged[:60])


def test_all_that_is_no_picture_is_named_at_once(folder, capsys):
    add_what_is_no_picture(folder)
    said = (
        rf"^5 files in {folder} cannot be used: LICENSE\.txt lies beside the folders of classes, "
        r"cat/a\.jpg is empty, cat/a\.txt is not PNG, JPEG or another format and 2 more; "
        rf"`nnlab data check {folder}` lists what is wrong, --skip-unreadable leaves such"
    )
    with pytest.raises(InputError, match=said):
        load(f"folder:{folder}")
    records = record_source(f"folder:{folder}", None, "train", skip_unreadable=True)
    assert len(records) == 12
    data = load(f"folder:{folder}", skip_unreadable=True)
    left = capsys.readouterr().err
    assert f"5 files in {folder} cannot be used and are left out: L" in left
    assert left.count("\n") == 1
    assert len(data.train.labels) + len(data.test.labels) == 15
    assert [
        int(path.split("/")[-2] == "dog") for path in data.test_files
    ] == data.test.labels.tolist()
    for file, image in zip(data.test_files, data.test.images, strict=True):
        np.testing.assert_array_equal(read_picture(file), image)


def test_one_file_that_is_no_picture_is_spoken_of_as_one(folder, capsys):
    (folder / "dog" / "x.png").write_text("x")
    load(f"folder:{folder}", skip_unreadable=True)
    assert f"1 file in {folder} cannot be used and is left out: d" in capsys.readouterr().err


def test_a_class_without_pictures_is_named_by_its_files(folder):
    (folder / "emu").mkdir()
    for name in ("1.png", "2.png"):
        (folder / "emu" / name).write_text("x")
    with pytest.raises(InputError, match=r"2 files in .* cannot be used: emu/1\.png is no image"):
        load(f"folder:{folder}")
    with pytest.raises(InputError, match="emu is an empty class"):
        load(f"folder:{folder}", skip_unreadable=True)


def test_a_share_of_each_class_is_held_out(folder):
    names, train, test = list_folder(folder, 0.2)
    assert names == ("cat", "dog")
    assert np.bincount([label for _, label in train]).tolist() == [8, 4]
    assert np.bincount([label for _, label in test]).tolist() == [2, 1]
    assert not set(train) & set(test) and len({*train, *test}) == 15
    assert list_folder(folder, 0.2) == (names, train, test)
    others = [list_folder(folder, 0.2, seed).test for seed in range(1, 5)]
    assert any(other != test for other in others)
    data = load(f"folder:{folder}", test_share=0.5)
    assert data.train.images.shape == (8, 4, 6, 1) and data.train.images.dtype == np.uint8
    assert (data.classes, data.class_names) == (2, ("cat", "dog"))
    assert data.test.labels.tolist() == [0] * 5 + [1] * 2


def test_a_folder_that_is_split_stays_so(tmp_path):
    train = [put(tmp_path / "train" / name / "1.jpg.png") for name in "ab"]
    put(tmp_path / "validation" / "a" / "1.png")
    test = put(tmp_path / "val" / "b" / "1.png")
    data = load(f"folder:{tmp_path}")
    np.testing.assert_array_equal(data.train.images, train)
    np.testing.assert_array_equal(data.test.images, [test])
    assert data.test.labels.tolist() == [1]
    put(tmp_path / "val" / "c" / "1.png")
    with pytest.raises(InputError, match=r"val/c is of a class that .*train lacks, expect"):
        load(f"folder:{tmp_path}")


def test_one_colour_picture_makes_all_of_them_colour(folder):
    pixels = put(folder / "dog" / "99.png")
    data = load(f"folder:{folder}", test_share=0.01)
    assert data.train.images.shape == (14, 4, 6, 3)
    assert (data.train.images == pixels).all((1, 2, 3)).sum() in (0, 1)
    grey = data.train.images[0]
    assert (grey == grey[..., :1]).all()


def test_records_are_read_when_they_are_asked_for(folder):
    put(folder / "cat" / "large.png", size=(30, 20))
    resize = Resize(5, 5)
    data = load(f"folder:{folder}", resize=resize)
    for split, expected in (("train", data.train), ("test", data.test)):
        records = record_source(f"folder:{folder}", None, split, resize=resize)
        records = pickle.loads(pickle.dumps(records))
        assert (len(records), records.classes) == (len(expected.labels), 2)
        images, labels = records.gather(range(len(records)))
        np.testing.assert_array_equal(images, expected.images)
        np.testing.assert_array_equal(labels, expected.labels)
        np.testing.assert_array_equal(records[1][0], images[1])
        with pytest.raises(IndexError):
            records[len(records)]
    images, labels = next(Stream(records, 2, seed=0).batches())
    assert images.shape == (2, 5, 5, 3) and labels.dtype == np.int32
    broken = Path(records.files[0])
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(InputError, match=f"^{broken} cannot be read as an image: "):
        records.gather(range(len(records)))
    with pytest.raises(InputError, match=rf"{broken.name} cannot be read as an image: "):
        load(f"folder:{folder}", resize=resize)


def spoil(folder, what) -> tuple[Any, str]:
    match what:
        case "no folder":
            return folder / "cat" / "00.png", r"there is no folder .*00\.png, expected"
        case "nothing":
            (folder.parent / "empty").mkdir()
            return folder.parent / "empty", "holds no class, expected at least two folders"
        case "one class":
            put(folder.parent / "one" / "cat" / "1.png")
            return folder.parent / "one", "holds the class cat alone"
        case "empty class":
            (folder / "emu").mkdir()
            return folder, "emu is an empty class, expected pictures in it"
        case "one picture":
            put(folder / "emu" / "1.png", colour=False)
            return folder, r"emu holds only 1\.png; expected a picture to train on and one to test"
        case "a loose file":
            (folder / "a.png").write_text("x")
            return folder, r"a\.png lies beside the folders of classes;"
        case "a text":
            (folder / "cat" / "a.txt").write_text("x")
            return folder, r"cat/a\.txt is not PNG, JPEG"
        case "a folder":
            (folder / "cat" / "more").mkdir()
            return folder, "cat/more is a folder within a class"
        case "two sizes":
            put(folder / "dog" / "wide.png", size=(4, 9))
            return (
                folder,
                r"wide\.png is 9 by 4 pixels, expected 6 by 4 as .*cat/\d+\.png is;",
            )
        case _:
            (folder / "dog" / "a.jpeg").write_bytes(b"")
            return folder, r"dog/a\.jpeg is empty"


@pytest.mark.parametrize(
    "what",
    [
        *("no folder", "nothing", "one class", "empty class", "one picture", "a loose file"),
        *("a text", "a folder", "two sizes", "no picture"),
    ],
)
def test_what_is_wrong_is_named(folder, what):
    path, message = spoil(folder, what)
    with pytest.raises(InputError, match=message) as error:
        load(f"folder:{path}")
    assert "\n" not in str(error.value) and re.search(str(folder.parent), str(error.value))
