"""A small run on drawn cells: rows, what goes on from what, and that a run goes on by rows."""

import json

import numpy as np
import pytest
from PIL import Image

from nnlab.errors import InputError
from nnlab.models import load_seeing

SCRIPT = "detection/bccd_yolo"


@pytest.fixture
def cells(tmp_path):
    """Pictures in VOC's form with one bright rectangle each."""
    root, rng = tmp_path / "bccd" / "BCCD", np.random.default_rng(0)
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for number in range(6):
        pixels = rng.integers(0, 60, (48, 64, 3), np.uint8)
        x, y = rng.integers(1, 30, 2)
        w, h = rng.integers(8, 18, 2)
        pixels[y : y + h, x : x + w] = 220
        Image.fromarray(pixels).save(root / f"JPEGImages/{number}.jpg")
        sides = dict(xmin=x + 1, ymin=y + 1, xmax=x + w, ymax=y + h)
        box = "".join(f"<{key}>{value}</{key}>" for key, value in sides.items())
        name = ("red", "white")[number % 2]
        (root / f"Annotations/{number}.xml").write_text(
            f"<a><object><name>{name}</name><bndbox>{box}</bndbox></object></a>"
        )
    (root / "ImageSets/Main/trainval.txt").write_text("0\n1\n2\n3\n")
    (root / "ImageSets/Main/test.txt").write_text("4\n5\n")
    return tmp_path


@pytest.mark.slow
def test_rows_and_what_goes_on(cells, script, tmp_path):
    def config(*networks, **options):
        small = dict(height=48, width=64, epochs=1, batch_size=2, every=1)
        out, data_dir = str(tmp_path / "run"), str(cells)
        return script.Config(out=out, data_dir=data_dir, networks=networks, **small, **options)

    with pytest.raises(InputError, match="no trained adder of seed 0"):
        script.main(config("adder-frozen"))
    script.main(config("float"))
    script.main(config("float-frozen", resume=True))
    result = json.loads((tmp_path / "run/result.json").read_text())
    rows = [(row["network"], row["seed"], row["epochs"]) for row in result["rows"]]
    assert rows == [("float", 0, 1), ("float-frozen", 0, 1)]
    assert {"AP50", "AP", "AP50 red", "AP50 white", "multiplications"} < result["rows"][0].keys()
    assert [row["network"] for row in result["table"]] == ["float", "float-frozen"]
    assert [point["network"] for point in result["curve"]] == ["float", "float-frozen"]
    assert (tmp_path / "run/curves.png").is_file()
    seeing = load_seeing(tmp_path / "run/networks/float_0.safetensors")
    assert (seeing.tells, seeing.class_names) == ("boxes", ("red", "white"))


def test_every_row_is_one_that_can_be_asked_for(script):
    assert set(script.TRAINED) < set(script.KINDS)
    frozen = [name for name, kind in script.KINDS.items() if kind.frozen]
    assert frozen == ["float-frozen", "adder-frozen"]
    assert all(script.KINDS[name].goes_on in script.TRAINED for name in frozen)
