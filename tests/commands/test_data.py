"""`nnlab data check` finds what was put there to be found."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from nnlab.commands import data
from nnlab.runs.script import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve dark cats, of which one is bright, and dogs; with every kind of fault."""
    root, rng = tmp_path_factory.mktemp("pets"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for number in range(12):
            pixels = rng.integers(0, 50, (9, 9, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02}.png")
    bright = rng.integers(200, 250, (30, 30, 3), np.uint8)
    Image.fromarray(bright).save(root / "cat" / "05.png")
    shutil.copy(root / "cat" / "01.png", root / "cat" / "copy.png")
    Image.open(root / "dog" / "02.png").save(root / "cat" / "dog.bmp")
    whole = (root / "dog" / "03.png").read_bytes()
    (root / "dog" / "cut.png").write_bytes(whole[:100])
    (root / "dog" / "empty.jpg").write_bytes(b"")
    (root / "dog" / "notes.txt").write_text("x")
    (root / "dog" / ".hidden").write_text("x")
    return root


@pytest.fixture
def call(capsys):
    def called(*args):
        status = 0
        try:
            run(data.main, data.Config, ["check", *map(str, args)])
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return called


def test_finds_every_fault(folder, call):
    status, out, _ = call(folder, "--json")
    found = json.loads(out)
    assert status == 1
    assert found["classes"] == {"cat": 14, "dog": 12}
    assert [*found["corrupt"]] == ["dog/cut.png", "dog/empty.jpg", "dog/notes.txt"]
    assert "is empty" in found["corrupt"]["dog/empty.jpg"]
    assert found["duplicates"] == [
        {"same": "bytes", "files": ["cat/01.png", "cat/copy.png"], "of": ["cat"]},
        {"same": "pixels", "files": ["cat/dog.bmp", "dog/02.png"], "of": ["cat", "dog"]},
    ]
    first = found["unlike"]["cat"][0]
    assert first["file"] == "cat/05.png" and first["medians"] > 3
    assert len(found["unlike"]["dog"]) == 3 and found["measure"] == "pixels"


def test_the_distance_is_the_one_that_is_stated(folder, call):
    _, out, _ = call(folder, "--json", "--unlike", "99")
    unlike = json.loads(out)["unlike"]["dog"]
    names = [each["file"] for each in unlike]
    size = (32, 32), Image.Resampling.BILINEAR
    some = [np.asarray(Image.open(folder / name).resize(*size), float) for name in names]
    mean = np.mean(some, axis=0)
    distances = [np.sqrt(np.mean((each - mean) ** 2)) for each in some]
    np.testing.assert_allclose([each["distance"] for each in unlike], distances, rtol=1e-9)
    assert distances == sorted(distances, reverse=True)
    medians = [each["medians"] for each in unlike]
    np.testing.assert_allclose(medians, distances / np.median(distances), rtol=1e-9)


def test_as_a_person_reads_it(folder, call):
    status, out, _ = call(folder)
    assert status == 1
    for line in (
        "3 files that no picture can be read from",
        "  dog/empty.jpg: is empty",
        "2 pictures more than once",
        "  same pixels, in cat and dog: cat/dog.bmp, dog/02.png",
        "  cat: 14",
    ):
        assert f"{line}\n" in out, line


def test_a_sound_folder_and_none(folder, call, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "sound" / name).mkdir(parents=True)
        shutil.copy(folder / name / "07.png", tmp_path / "sound" / name)
    assert call(tmp_path / "sound")[0] == 0
    status, out, err = call(tmp_path / "none")
    assert (status, out) == (2, "") and err.startswith("there is no folder ")
    status, out, err = call(tmp_path / "sound" / "cat")
    assert (status, out) == (2, "") and "holds pictures itself" in err
    (tmp_path / "empty").mkdir()
    assert call(tmp_path / "empty")[::2] == (
        2,
        f"{tmp_path / 'empty'} holds no picture, expected PNG, JPEG or another format.\n",
    )
