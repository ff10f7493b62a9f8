"""The scripts as a user runs them: what they leave behind, and what they say to bad input."""

import gzip
import importlib.util
import json
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab import runs, training
from nnlab.models import resnet20
from nnlab.optim import adder_recipe
from nnlab.runs.script import run

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
DEMO = EXPERIMENTS / "adder_vs_cnn.py"


def python(script, *args):
    command = [sys.executable, str(script), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "run"
    return python(DEMO, "--epochs", 3, "--out", out), out


@pytest.mark.slow
def test_demo_leaves_a_whole_run_folder(demo):
    process, out = demo
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""  # the progress display is silent, and nothing warns
    assert "\x1b" not in process.stdout
    for word in ("CNN", "AdderNet", "BNN", "multiplications", "bit ops", "energy"):
        assert word in process.stdout
    assert json.loads((out / "config.json").read_text())["epochs"] == 3
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["network"] for line in lines] == ["CNN"] * 3 + ["AdderNet"] * 3 + ["BNN"] * 3
    table = {row["network"]: row for row in json.loads((out / "result.json").read_text())["table"]}
    assert table["CNN"]["multiplications"] > 40 * table["AdderNet"]["multiplications"]
    assert table["CNN"]["parameter bytes"] > 15 * table["BNN"]["parameter bytes"]
    assert table["AdderNet"]["bit ops"] == 0 < table["BNN"]["bit ops"]
    for name in table:
        assert list((out / "tensorboard" / name).glob("events*"))
        assert (out / "checkpoints" / name / "step_66").is_dir()  # 3 epochs of 1437 // 64
    report = (out / "report.html").read_text()
    assert "Laplace fits better" in report or "Gaussian fits better" in report
    assert not any(f'{attribute}="http' in report for attribute in ("src", "href"))


@pytest.mark.slow
def test_a_run_is_not_overwritten_unasked(demo, said):
    _, out = demo
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert said(DEMO, ["--epochs", "1", "--out", str(out)]).endswith("--overwrite.")
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture
def said(capsys, monkeypatch):
    """`said(script, args)` is the sentence that a script says before it exits with status 2."""

    def call(script, args):
        spec = importlib.util.spec_from_file_location(script.stem, script)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, script.stem, module)
        spec.loader.exec_module(module)
        with pytest.raises(SystemExit) as stop:
            run(module.main, module.Config, args)
        assert stop.value.code == 2
        return capsys.readouterr().err.strip()

    return call


@pytest.mark.parametrize(
    "script",
    [
        "adder_vs_cnn",
        "adder/adder_mnist_ablation",
        "adder/adder_cifar10",
        "arithmetics/posit_mnist",
        "adder/pruning",
    ],
)
@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--learning-rate", "nan"], "--learning-rate must be a positive finite number, not nan."),
        (["--learning-rate", "-1"], "--learning-rate must be a positive finite number, not -1.0."),
        (["--epochs", "0"], "--epochs must be an integer from 1 to 2147483647, not 0."),
        (["--batch-size", "-8"], "--batch-size must be an integer from 1 to 2147483647, not -8."),
    ],
)
def test_bad_figures_get_one_sentence(script, args, sentence, said):
    assert said(EXPERIMENTS / f"{script}.py", args) == sentence


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--dataset", "mnits"], ["mnits", "digits", "cifar10"]),
        (["--batch-size", "2000"], ["2000", "1437"]),
        (["--out", "/proc/nnlab/run"], ["/proc/nnlab/run"]),
        (["--out", "pyproject.toml/run"], ["pyproject.toml/run"]),
    ],
)
def test_bad_names_and_places_get_one_sentence(args, words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    sentence = said(DEMO, args)
    assert "\n" not in sentence
    assert all(word in sentence for word in words), sentence


def test_a_truncated_file_is_named_and_no_run_folder_is_left(said, tmp_path):
    write_mnist(tmp_path, images=64)
    whole = (tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes()
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(whole[: len(whole) // 2])
    args = ["--dataset", "mnist", "--data-dir", str(tmp_path), "--out", str(tmp_path / "run")]
    assert "t10k-images-idx3-ubyte.gz" in said(DEMO, args)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ablation_runs_each_cell_and_saves_after_each(tmp_path):
    write_mnist(tmp_path, images=64)
    script, out = EXPERIMENTS / "adder" / "adder_mnist_ablation.py", tmp_path / "run"
    small = ["--epochs", 2, "--batch-size", 16, "--data-dir", tmp_path, "--out", out]
    process = python(script, *small, "--cells", "CNN", "sign-x100", "--seeds", 0, 1)
    assert process.returncode == 0, process.stderr
    rows = json.loads((out / "result.json").read_text())["rows"]
    ran = [(row["cell"], row["seed"]) for row in rows]
    assert ran == [("CNN", 0), ("CNN", 1), ("sign-x100", 0), ("sign-x100", 1)]
    assert all(len(row["history"]["test_accuracy"]) == 2 for row in rows)


@pytest.mark.slow
def test_cifar_script_trains_resnets_for_hundreds_of_steps(tmp_path):
    small = ["--dataset", "digits", "--epochs", 2, "--batch-size", 16, "--out", tmp_path / "run"]
    process = python(EXPERIMENTS / "adder" / "adder_cifar10.py", *small)
    assert process.returncode == 0, process.stderr
    rows = json.loads((tmp_path / "run" / "result.json").read_text())["rows"]
    assert [row["network"] for row in rows] == ["CNN", "AdderNet", "BNN"]
    for row in rows:  # 2 epochs of 1437 // 16 steps, of cropped and flipped digits
        first, last = row["history"]["train_loss"]
        assert last < first


@pytest.mark.slow
def test_posits_go_on_where_the_warm_up_ends(tmp_path):
    small = ["--dataset", "digits", "--epochs", 2, "--batch-size", 64, "--out", tmp_path / "run"]
    script = EXPERIMENTS / "arithmetics" / "posit_mnist.py"
    process = python(script, *small, "--cells", "posit8-warm-up", "--learning-rate", 0.02)
    assert process.returncode == 0, process.stderr
    (row,) = json.loads((tmp_path / "run" / "result.json").read_text())["rows"]
    first, last = row["history"]["train_loss"]
    assert last < first


@pytest.mark.slow
def test_pruning_counts_what_is_left(tmp_path):
    small = ["--networks", "AdderNet", "--sparsities", 0.5, "--epochs", 1, "--batch-size", 16]
    process = python(EXPERIMENTS / "adder" / "pruning.py", *small, "--out", tmp_path / "run")
    assert process.returncode == 0, process.stderr
    table = json.loads((tmp_path / "run" / "result.json").read_text())["table"]
    dense, *rest = (row["additions"] for row in table)
    assert len(rest) == 4 and len(set(rest)) <= 2
    # Half of 60,480 inner weights are 0, but each term of the first layer is left: of |x - w|'s
    # two additions one remains, a quarter less of what the inner layers cost.
    assert all(0.7 < additions / dense < 0.8 for additions in rest[:2])
    assert (tmp_path / "run" / "curves.png").is_file()


@pytest.mark.slow
def test_sign_direction_in_small(tmp_path):
    out = tmp_path / "run"
    small = ["--epochs", 2, "--draws", 50, "--steps", 200, "--out", out]
    process = python(EXPERIMENTS / "optimisers" / "sign_direction.py", *small)
    assert process.returncode == 0, process.stderr
    result = json.loads((out / "result.json").read_text())
    for row in result["by_dimension"]:
        # Of one number both are 1, and gamma functions are good to a few roundings.
        assert row["sparse"] <= row["isotropic"] + 1e-14 and 0.797 < row["isotropic"] < 1 + 1e-14
    layers = [layer for network in result["networks"].values() for layer in network.values()]
    assert len(layers) == 12
    for layer in layers:
        assert len(layer["cosine"]) == 2
        assert all(layer["weights"] ** -0.5 < cosine <= 1 for cosine in layer["cosine"])
    for row in result["examples"][1:]:  # signs end as high as they began, at 1 and at 2
        assert row["signSGD"] > 0.9
        assert row["SGD"] < 0.6 and abs(row["EF-signSGD"] - row["SGD"]) < 0.01  # it follows SGD
    assert (out / "curves.png").is_file()


@pytest.mark.slow
def test_sign_optimizers_all_learn(tmp_path):
    out = tmp_path / "run"
    process = python(
        EXPERIMENTS / "optimisers" / "sign_optimizers.py", "--epochs", 2, "--seeds", 0, "--out", out
    )
    assert process.returncode == 0, process.stderr
    rows = json.loads((out / "result.json").read_text())["rows"]
    assert len(rows) == 10
    for row in rows:
        assert row["test accuracy / %"] > 50, row


@pytest.mark.slow
def test_vanishing_gradients_in_small(tmp_path):
    out = tmp_path / "run"
    small = ["--depth", 6, "--width", 32, "--epochs", 2, "--seeds", 0, "--out", out]
    names = ["sigmoid, N(0, 1)", "sigmoid, Xavier", "ReLU, He", "adder, N(0, 3²), default"]
    process = python(
        EXPERIMENTS / "optimisers" / "vanishing_gradients.py", *small, "--networks", *names
    )
    assert process.returncode == 0, process.stderr
    rows = {row["network"]: row for row in json.loads((out / "result.json").read_text())["rows"]}
    assert [*rows] == names and all(len(row["norms"]) == 7 for row in rows.values())
    shrinks = {name: row["first layer"] / row["last layer"] for name, row in rows.items()}
    # A sigmoid's slope is 1/4 at most, and Xavier's weights keep sizes: at most 4^-5, and a few
    # times that for activations that are larger in front.
    assert shrinks["sigmoid, Xavier"] < 0.01 < 0.1 < shrinks["ReLU, He"] < 10
    assert rows["sigmoid, N(0, 1)"]["shut / %"] > 1 > rows["sigmoid, Xavier"]["shut / %"]
    assert rows[names[-1]]["high rate"] > 60 > rows["sigmoid, Xavier"]["high rate"]
    assert (out / "curves.png").is_file()


@pytest.mark.slow
def test_arithmetics_and_then_their_weights(tmp_path):
    trained, out = tmp_path / "run", tmp_path / "weights"
    small = ["--dataset", "digits", "--epochs", 2, "--batch-size", 64, "--out", trained]
    names = ["adder", "lp_adder", "shift_ps"]
    process = python(
        EXPERIMENTS / "arithmetics" / "arithmetics_mnist.py", *small, "--arithmetics", *names
    )
    assert process.returncode == 0, process.stderr
    table = json.loads((trained / "result.json").read_text())["table"]
    assert [row["arithmetic"] for row in table] == names
    adder, _, shift = table
    assert adder["additions"] > shift["additions"] and adder["bit ops"] == 0 < shift["bit ops"]
    assert adder["parameter bytes"] > 5 * shift["parameter bytes"]  # 32 bits a weight, and 5

    script = EXPERIMENTS / "adder" / "weight_distributions.py"
    process = python(script, "--trained", trained, "--out", out)
    assert process.returncode == 0, process.stderr
    table = json.loads((out / "result.json").read_text())["table"]
    assert [row["arithmetic"] for row in table] == names
    assert (out / "weights.png").is_file()


def test_the_zoo_is_counted(tmp_path):
    out = tmp_path / "run"
    process = python(
        EXPERIMENTS / "deployment" / "zoo.py", "--models", "lenet5", "lenet5_full", "--out", out
    )
    assert process.returncode == 0, process.stderr
    table = json.loads((out / "result.json").read_text())["table"]
    assert [(row["model"], row["parameters"]) for row in table] == [
        ("lenet5", 61_942),
        ("lenet5_full", 61_706),
    ]
    for row in table:  # of the layers but the first and the classifier no term is multiplied
        saved = row["CNN multiplications"] - row["AdderNet multiplications"]
        assert 240_000 < saved < 300_000


@pytest.mark.slow
def test_arithmetics_on_a_resnet(tmp_path):
    small = ["--dataset", "digits", "--epochs", 1, "--batch-size", 64, "--out", tmp_path / "run"]
    script = EXPERIMENTS / "arithmetics" / "arithmetics_cifar10.py"
    process = python(script, *small, "--arithmetics", "bireal")
    assert process.returncode == 0, process.stderr
    assert "bireal" in process.stdout


@pytest.mark.slow
def test_deployment_from_float_to_few_bits(tmp_path):
    write_mnist(tmp_path, images=640)
    small = ["--networks", "lenet5", "--lenet5-epochs", 4, "--batch-size", 32, "--bits", 8, 4]
    folders = ["--mnist-dir", tmp_path, "--out", tmp_path / "run"]
    process = python(
        EXPERIMENTS / "deployment" / "deploy_adder.py", *small, "--repeats", 1, *folders
    )
    assert process.returncode == 0, process.stderr
    table = json.loads((tmp_path / "run" / "result.json").read_text())["table"]
    rows = {row["variant"]: row for row in table if "PyTorch" not in row["variant"]}
    adder = [rows[f"AdderNet {kind}"] for kind in ("float32", "int8", "int4")]
    assert [*rows] == [
        *("CNN float32", "AdderNet float32", "AdderNet int8", "AdderNet int4"),
        *("BNN float32", "BNN packed"),
    ]
    sizes = [row["file bytes"] for row in adder]
    assert sizes[0] > 3 * sizes[1] > 3 * sizes[2]
    accuracies = [row["test accuracy / %"] for row in adder]
    assert accuracies[0] > 80 and np.ptp(accuracies) < 5


@pytest.mark.slow
def test_transfer_from_a_run_of_another_script(tmp_path):
    model, optimizer, rng = resnet20(), adder_recipe(1), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    drawn = jax.tree.map(lambda s: jnp.asarray(rng.uniform(0, 1, s.shape), s.dtype), shapes)
    params, stats = drawn["params"], drawn["batch_stats"]
    zero, key = jnp.zeros((), jnp.int32), jax.random.key(0)
    state = training.State(zero, params, stats, optimizer.init(params), key)
    runs.save(tmp_path / "trained" / "checkpoints" / "CNN" / "step_0", state)

    out = tmp_path / "run"
    small = ["--dataset", "digits", "--labels", 2, 4, "--seeds", 0, 1, "--epochs", 1]
    small += ["--networks", "CNN", "--ways", "frozen", "--batch-size", 8, "--out", out]
    script = EXPERIMENTS / "adder" / "transfer_learning.py"
    process = python(script, *small, "--pretrained", tmp_path / "trained")
    assert process.returncode == 0, process.stderr
    result = json.loads((out / "result.json").read_text())
    ran = [(row["labels a class"], row["seed"]) for row in result["rows"]]
    assert ran == [(2, 0), (2, 1), (4, 0)] and result["steps"] == 5  # of 40 images
    assert [row["seeds"] for row in result["table"]] == [2, 1]
    assert (out / "curves.png").is_file()


@pytest.mark.parametrize(
    ("script", "args", "words"),
    [
        ("deployment/deploy_adder", ["--bits", "9"], ["--bits", "2 to 8", "9"]),
        (
            "adder/transfer_learning",
            ["--ways", "slow"],
            ["--ways", "scratch, fine-tuned, frozen", "slow"],
        ),
        ("adder/transfer_learning", ["--labels", "0"], ["--labels", "from 1", "0"]),
        (
            "adder/transfer_learning",
            ["--dataset", "digits", "--labels", "9", "--pretrained", "nowhere"],
            ["--pretrained", "adder_cifar10.py", "CNN", "nowhere"],
        ),
        ("adder/weight_distributions", ["--trained", "nowhere"], ["--trained", "nowhere"]),
        (
            "arithmetics/arithmetics_mnist",
            ["--arithmetics", "moon"],
            ["--arithmetics", "adder", "moon"],
        ),
        ("arithmetics/arithmetics_cifar10", ["--depth", "9"], ["--depth", "6 n + 2", "9"]),
        ("deployment/zoo", ["--models", "moonnet"], ["--models", "resnet50", "moonnet"]),
    ],
)
def test_other_bad_figures_get_one_sentence(script, args, words, said):
    sentence = said(EXPERIMENTS / f"{script}.py", args)
    assert "\n" not in sentence and all(word in sentence for word in words), sentence


def write_mnist(folder, images):
    """Files in MNIST's format with an easily learnt class: the row that is bright."""
    labels = np.arange(images) % 10
    pixels = np.zeros((images, 28, 28), np.uint8)
    pixels[np.arange(images), 2 * labels + 4] = 255
    for split in ("train", "t10k"):
        header = struct.pack(">4i", 0x803, *pixels.shape)
        path = folder / f"{split}-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(header + pixels.tobytes()))
        header = struct.pack(">2i", 0x801, images)
        path = folder / f"{split}-labels-idx1-ubyte.gz"
        path.write_bytes(gzip.compress(header + labels.astype(np.uint8).tobytes()))
