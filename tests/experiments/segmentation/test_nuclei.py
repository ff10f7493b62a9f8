"""The experiment trains on a folder of one's own, measures single nuclei, and leaves a network."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from nnlab.errors import InputError

SCRIPT = "segmentation/nuclei"


def test_the_networks_are_those_of_the_page(script):
    model = script.model_of(script.Case(0, "unet", "float"), 2, script.Config())
    image = np.zeros((1, 32, 32, 3), np.float32)
    shapes = jax.eval_shape(lambda key: model.init(key, image), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 271_922
    assert script.model_of(script.Case(0, "unet", "adder"), 2, script.Config()).norm_up


def test_a_crop_larger_than_the_pictures_is_refused(script):
    with pytest.raises(InputError, match="--crop must be at most 64, not 128"):
        script.opened(script.Config(height=64))


@pytest.mark.slow
def test_a_folder_of_ones_own(script, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(10):
        mask = np.zeros((32, 32), np.uint8)
        top, left = rng.integers(0, 20, 2)
        mask[top : top + 10, left : left + 10] = 255
        picture = np.where(mask[..., None] > 0, [200, 40, 40], [40, 40, 200]).astype(np.uint8)
        for kind, array in (("images", picture), ("masks", mask)):
            (tmp_path / "own" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "own" / kind / f"{number}.png")
    options = dict(folder=str(tmp_path / "own"), height=32, width=32, crop=16, features=4)
    config = dict(networks=("unet",), arithmetics=("float",), epochs=40, batch_size=2)
    script.main(script.Config(out=str(tmp_path / "run"), **options, **config))
    [row] = json.loads((tmp_path / "run" / "result.json").read_text())["table"]
    assert row["IoU / %"] > 95 and row["F1 of nuclei / %"] == 100
    assert (tmp_path / "run" / "network.safetensors").is_file()
