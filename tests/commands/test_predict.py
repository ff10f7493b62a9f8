"""`nnlab predict`: the network of a training sees a picture as it saw the training images."""

import dataclasses
import importlib
import json
from typing import Any

import jax
import numpy as np
import optax
import pytest
from PIL import Image

from nnlab import deployment, runs, training, vision
from nnlab.commands import data, predict
from nnlab.errors import InputError
from nnlab.files import container
from nnlab.models import MLP, load_classifier, load_model, save_model
from nnlab.runs import networks
from nnlab.runs.descriptions import described
from nnlab.runs.script import run
from nnlab.vision import drawing

CLASSES = "class0", "class1", "class2"
OWN = """
import flax.linen as nn


class OwnNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x.reshape(len(x), -1))
"""

SEES = """
import dataclasses
import flax.linen as nn
import jax.numpy as jnp
from nnlab.vision.detection.detectors import Detections


class Brightness(nn.Module):
    @nn.compact
    def __call__(self, x):
        self.param("unused", nn.initializers.zeros, ())
        return jnp.concatenate([0.5 - x, x - 0.5], -1) * 20


@dataclasses.dataclass(frozen=True)
class Middle:
    side: int

    def detect(self, outputs):
        low, high = self.side / 4, self.side * 3 / 4
        box = jnp.array([[[low, low, high, high], [0.0, 0, 1, 1]]])
        n = len(outputs)
        scores = jnp.tile(jnp.array([[0.9, 0.2]]), (n, 1))
        classes = jnp.tile(jnp.array([[1, 0]]), (n, 1))
        return Detections(jnp.tile(box, (n, 1, 1)), scores, classes, scores > 0)
"""


@dataclasses.dataclass(frozen=True)
class Config(vision.ImageRun):
    out: str = ""


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_pictures):
    """The folder of a training, with a worse network beside its own, and its images."""
    root = tmp_path_factory.mktemp("trained")
    write_pictures(root / "colours", classes=3, each=10, size=8)
    config = Config(dataset=f"folder:{root / 'colours'}", out=str(root / "run"))
    images = config.images()
    optimizer = optax.sgd(0.3)
    with config.open(notes=images.notes) as record:
        model = MLP(3, depth=1, width=8)
        start = training.init(jax.random.key(0), model, optimizer, images.train[0])
        variables = {"params": start.params, "batch_stats": start.batch_stats}
        networks.keep(record.folder, "worse", model, variables, images.test[0], 0.0)
        runs.fit(
            "first",
            start,
            training.train_step(model, optimizer),
            training.evaluation(model),
            images.feed(24),
            images.test,
            epochs=6,
            folder=record.folder,
            diagnose=False,
        )
    return root / "run", images


@pytest.fixture
def call(capsys):
    def called(*args, status=0):
        try:
            run(predict.main, predict.Config, [str(arg) for arg in args])
        except SystemExit as end:
            assert end.code == status
        else:
            assert not status
        streams = capsys.readouterr()
        if status:
            assert streams.err.count("\n") == 1
            return streams.err
        return streams.out

    return called


def test_a_training_leaves_its_networks_and_the_best_as_its_own(trained):
    folder, images = trained
    files = {name: folder / "networks" / f"{name}.safetensors" for name in ("first", "worse")}
    assert (folder / "network.safetensors").read_bytes() == files["first"].read_bytes()
    assert load_model(files["worse"]).notes["score"] == 0
    model, variables, found = load_model(files["first"])
    logits: Any = model.apply(variables, images.test[0])
    right = logits.argmax(1) == images.test[1]
    assert found["score"] == pytest.approx(float(right.mean())) and found["score"] > 0.5
    assert (found["classes"], found["network"]) == (list(CLASSES), "first")


def test_names_and_probabilities(trained, call):
    folder, images = trained
    paths = [folder.parent / "colours" / name / f"{n}.png" for name in CLASSES for n in range(10)]
    lines = [
        json.loads(line) for line in call(folder, "--name", "first", "--json", *paths).splitlines()
    ]
    model, variables, _ = load_model(folder / "networks" / "first.safetensors")
    stored = np.stack([np.asarray(Image.open(path)) for path in paths])
    mean, std = images.preparation.mean, images.preparation.std
    x = (stored / 255 - np.array(mean)) / np.array(std)
    logits: Any = model.apply(variables, x.astype(np.float32))
    expected = jax.nn.softmax(logits)
    for line, path, row in zip(lines, paths, np.asarray(expected), strict=True):
        assert line["image"] == str(path) and [*line["probabilities"]] == list(CLASSES)
        np.testing.assert_allclose([*line["probabilities"].values()], row, atol=1e-5)
        assert line["class"] == CLASSES[row.argmax()]
        assert line["probability"] == max(line["probabilities"].values())
    large = folder.parent / "large.jpg"
    Image.new("RGB", (90, 40), (0, 255, 0)).save(large)
    out = call(folder, large, "--top", "2")
    assert out.startswith(f"{large}: ") and out.count(" %") == 2 and out.count("\n") == 1


def test_a_network_of_integers(trained, call, tmp_path):
    folder, images = trained
    model, variables, notes = load_model(folder / "networks" / "first.safetensors")
    integer = deployment.quantize(model, variables, images.train[0])
    path = tmp_path / "integer.safetensors"
    deployment.save_network(path, integer, about=notes)
    picture = folder.parent / "colours" / "class1" / "0.png"
    exact, rounded = (
        json.loads(call(network, "--json", picture))
        for network in (folder / "networks" / "first.safetensors", path)
    )
    assert rounded["probability"] == pytest.approx(exact["probability"], abs=0.1)
    assert rounded["class"] == exact["class"]


def test_what_cannot_be_used_is_one_sentence(trained, call, tmp_path):
    folder, _ = trained
    file = folder / "networks" / "first.safetensors"
    assert "No IMAGE is given" in call(file, status=2)
    assert "first, worse" in call(folder, "x.png", "--name", "second", status=2)
    assert "--name is for the folder of a run" in call(file, "x.png", "--name", "first", status=2)
    assert "holds no network.safetensors" in call(tmp_path, "x.png", status=2)
    assert "there is no file" in call(tmp_path / "none", "x.png", status=2)
    assert "x.png cannot be read: No such file" in call(file, tmp_path / "x.png", status=2)
    model, variables, notes = load_model(file)
    image, larger = np.zeros((1, 8, 8, 3), np.float32), notes["images"] | {"border": [40, 40]}
    for name, changed, said in (
        ("none", {}, "does not say how it sees pictures"),
        ("few", notes | {"classes": ["a"]}, "names 1 classes for outputs"),
        ("other", notes | {"images": larger}, "does not take the images"),
    ):
        save_model(tmp_path / name, model, variables, image, notes=changed)
        assert said in call(tmp_path / name, "x.png", status=2)


def test_a_network_of_ones_own_is_asked_where_its_file_is_trusted(trained, call, tmp_path):
    folder, images = trained
    (tmp_path / "own_net.py").write_text(OWN)
    file, picture = tmp_path / "own.safetensors", folder.parent / "colours" / "class1" / "0.png"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        model = importlib.import_module("own_net").OwnNet()
        variables = model.init(jax.random.key(0), images.test[0][:1])
        save_model(file, model, variables, images.test[0][:1], notes=images.notes)
        assert "own_net" in call(file, picture, status=2)
        assert call(file, picture, "--trust").startswith(f"{picture}: class")


def test_a_damaged_network_gives_way_to_the_next(trained, tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "network.safetensors").write_bytes(b"x")
    model, variables, _ = load_model(trained[0] / "network.safetensors")
    folder = runs.RunFolder(path, notes={"classes": ["x"]})
    networks.keep(folder, "CNN", model, variables, np.zeros((2, 8, 8, 3), np.float32), 0.5)
    about = container.read(path / "network.safetensors").about
    assert about["notes"] == {"classes": ["x"], "network": "CNN", "score": 0.5}
    # What a script has written itself is not replaced.
    image, notes = np.zeros((1, 8, 8, 3), np.float32), {"vocabulary": "ab"}
    save_model(folder.network, model, variables, image, notes=notes, overwrite=True)
    networks.keep(folder, "CNN", model, variables, image, 0.9)
    assert container.read(folder.network).about["notes"] == notes


def test_pictures_unlike_theirs_by_a_networks_features(trained, capsys):
    folder, images = trained
    args = ["check", str(folder.parent / "colours"), "--json", "--unlike", "99"]
    run(data.main, data.Config, [*args, "--network", str(folder)])
    found = json.loads(capsys.readouterr().out)
    assert found["measure"] == "features" and not found["corrupt"]
    model, variables, _ = load_model(folder / "network.safetensors")
    paths = [folder.parent / "colours" / "class0" / f"{n}.png" for n in range(10)]
    stored = np.stack([np.asarray(Image.open(path)) for path in paths])
    _, sown = model.apply(variables, images.preparation(stored), mutable=["intermediates"])
    features = np.asarray(sown["intermediates"]["features"][0], float).reshape(10, -1)
    distances = np.sqrt(np.square(features - features.mean(0)).mean(1))
    by_file = {each["file"]: each["distance"] for each in found["unlike"]["class0"]}
    expected = {f"class0/{n}.png": distance for n, distance in enumerate(distances)}
    assert by_file == pytest.approx(expected, rel=1e-3)


@pytest.fixture(scope="module")
def seers(tmp_path_factory):
    """Files of a network of pixels and of one of boxes, of grey images of 8×8, and a picture."""
    folder = tmp_path_factory.mktemp("seers")
    (folder / "seers.py").write_text(SEES)
    prepared = vision.Preparation(8, 8, 1, (0.0,), (1.0,), fit="stretch")
    notes = {"classes": ["dark", "bright"], "images": prepared.as_notes()}
    image = np.zeros((1, 8, 8, 1), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        seers = importlib.import_module("seers")
        model = seers.Brightness()
        variables = model.init(jax.random.key(0), image)
        detector = {"detector": described("detector", seers.Middle(8))}
        save_model(folder / "pixels", model, variables, image, notes=notes)
        save_model(folder / "boxes", model, variables, image, notes=notes | detector)
        picture = np.zeros((16, 32), np.uint8)
        picture[:, 24:] = 255
        Image.fromarray(picture).save(folder / "half.png")
        yield folder


def test_masks_are_drawn_at_the_size_of_the_picture(seers, call, tmp_path):
    out = call(seers / "pixels", seers / "half.png", "--trust", "--draw", tmp_path / "seen")
    assert out == f"{seers / 'half.png'}: dark 75.0 %, bright 25.0 %\n"
    mask = np.asarray(Image.open(tmp_path / "seen" / "half_mask.png"))
    assert mask.shape == (16, 32) and (mask[:, 24:] == 1).all() and not mask[:, :24].any()
    drawn = np.asarray(Image.open(tmp_path / "seen" / "half.png"))
    assert drawn.shape == (16, 32, 3) and not drawn[:, :24].any()
    np.testing.assert_array_equal(
        drawn[0, -1],
        drawing.draw_mask(np.full((1, 1, 3), 255, np.uint8), np.ones((1, 1), int))[0, 0],
    )
    again = call(
        seers / "pixels", seers / "half.png", "--trust", "--draw", tmp_path / "seen", status=2
    )
    assert "half.png exists; --overwrite replaces it" in again
    found = json.loads(call(seers / "pixels", seers / "half.png", "--trust", "--json"))
    assert found["pixels"] == {"dark": 0.75, "bright": 0.25}


def test_boxes_are_in_pixels_of_the_picture(seers, call, tmp_path):
    found = json.loads(call(seers / "boxes", seers / "half.png", "--trust", "--json"))
    assert found["boxes"] == [
        {"class": "bright", "probability": pytest.approx(0.9), "box": [8, 4, 24, 12]}
    ]
    out = call(
        seers / "boxes", seers / "half.png", "--trust", "--least", "0.95", "--draw", tmp_path
    )
    assert out == f"{seers / 'half.png'}: nothing\n"
    call(seers / "boxes", seers / "half.png", "--trust", "--draw", tmp_path, "--overwrite")
    drawn = np.asarray(Image.open(tmp_path / "half.png"))
    np.testing.assert_array_equal(drawn[5, 8], drawing.colour_of(1))
    np.testing.assert_array_equal(drawn[10, 4], [0, 0, 0])


def test_what_cannot_be_drawn_is_one_sentence(trained, seers, call, tmp_path):
    said = call(trained[0], seers / "half.png", "--draw", tmp_path, status=2)
    assert "finds no boxes or masks to draw" in said
    twice = call(
        seers / "boxes",
        seers / "half.png",
        "other/half.png",
        "--trust",
        "--draw",
        tmp_path,
        status=2,
    )
    assert "two pictures would be drawn into" in twice
    same = tmp_path / "cell.png", tmp_path / "cell_mask.png"
    for each in same:
        Image.new("L", (8, 8)).save(each)
    options = ("--trust", "--overwrite", "--draw")
    masks = call(seers / "pixels", *same, *options, tmp_path / "seen", status=2)
    assert "cell_mask.png, expected other names" in masks  # a drawing and another one's mask
    own = call(seers / "boxes", same[0], *options, tmp_path, status=2)
    assert "cell.png is one of the pictures" in own and Image.open(same[0]).mode == "L"
    with pytest.raises(InputError, match="gives pixels, expected a network that tells pictures"):
        load_classifier(seers / "pixels", trust=True)
