"""What holds for every script: its help, its answer to bad values, and a run in small.

`SMALL` is the table of small runs. In them `fit` does not train: it traces the step and the
evaluation, saves the state that it was given, and returns a made-up history. So all that the script
itself does is run, and what takes long is left to the tests of training and to those of
`tests/experiments` that run a script as it is.
"""

import dataclasses
import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from nnlab import kernels, runs, training
from nnlab.runs.checkpoints import save
from nnlab.runs.evaluating import Outcome
from nnlab.runs.script import run
from nnlab.training.evaluation import Evaluation
from nnlab.vision import Preparation

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SCRIPTS = sorted(
    str(path.relative_to(EXPERIMENTS).with_suffix(""))
    for path in EXPERIMENTS.rglob("*.py")
    if "__main__" in path.read_text()
)


@pytest.fixture
def ended(capsys):
    """`ended(script, args)` is the exit status, and what was printed and said."""

    def call(script, args):
        status = 0
        try:
            run(script.main, script.Config, [str(arg) for arg in args])
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name, load_script, ended):
    script = load_script(name)
    status, out, err = ended(script, ["--help"])
    assert (status, err) == (0, "")
    assert script.__doc__.split("\n", 1)[0] in out
    for field in dataclasses.fields(script.Config):
        if "Positional" not in str(field.type):  # which has a name of its own
            assert f"--{field.name.replace('_', '-')}" in out


def bad_values(field: dataclasses.Field) -> list[Any]:
    """Values that no field of numbers with this default can use."""
    default = field.default
    if isinstance(default, tuple) and default and not isinstance(default[0], str):
        return [(*default, -1), (*default, 2**32)]
    if isinstance(default, bool) or not isinstance(default, int | float):
        return []
    return [-1.0, math.nan, math.inf] if isinstance(default, float) else [-1, 2**32, 1.5]


@pytest.mark.parametrize("name", SCRIPTS)
def test_bad_numbers_are_one_sentence_before_any_folder_is_made(
    name, load_script, ended, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    script = load_script(name)
    config = script.Config()
    numbers = [field for field in dataclasses.fields(config) if bad_values(field)]
    for field in numbers:
        flag = f"--{field.name.replace('_', '-')}"
        for value in bad_values(field):
            with pytest.raises(ValueError, match=rf"^{flag} .*\.$") as error:
                dataclasses.replace(config, **{field.name: value})
            assert "\n" not in str(error.value)
    for field in numbers[:1]:
        args = [f"--{field.name.replace('_', '-')}", "-1"]
        status, out, err = ended(script, args)
        assert (status, out) == (2, "") and err.startswith(args[0]) and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("adder/adder_cifar10", ["--coordinator", "host:1"], ["--processes and --process"]),
        ("adder/transfer_learning", ["--ways", "slow"], ["--ways", "fine-tuned", "slow"]),
        (
            "adder/transfer_learning",
            ["--dataset", "digits", "--labels", "9", "--pretrained", "nowhere"],
            ["--pretrained", "adder_cifar10.py", "CNN", "nowhere"],
        ),
        ("adder/weight_distributions", ["--trained", "nowhere"], ["--trained", "nowhere"]),
        ("adder_vs_cnn", ["--batch-size", "2000"], ["2000", "1437"]),
        ("adder_vs_cnn", ["--dataset", "mnits"], ["mnits", "digits", "cifar10"]),
        ("adder_vs_cnn", ["--out", "/proc/nnlab/run"], ["/proc/nnlab/run"]),
        ("adder_vs_cnn", ["--data-dir", "nowhere"], ["digits", "nowhere", "--data-dir"]),
        ("adder_vs_cnn", ["--test-share", "0.5"], ["--test-share", "folder:PATH", "digits"]),
        ("anomaly/anomaly_logs", ["--file", "a.log", "--data-dir", "b"], ["--file", "--data-dir"]),
        ("anomaly/anomaly_series", ["--file", "a.csv", "--data-dir", "b"], ["--file", "b"]),
        ("anomaly/tutorial_lstm", ["--tasks", "charts", "--data-dir", "b"], ["charts", "b;"]),
        ("text/char_lm", ["--corpus", "/proc/version", "--data-dir", "b"], ["version", "b;"]),
        ("adder_vs_cnn", ["--train-images", "2000"], ["--train-images", "1437", "2000"]),
        ("images/fine_tune", [], ["--weights", "resnet18"]),
        ("images/fine_tune", ["--network", "vgg16"], ["--network", "resnet18", "vgg16"]),
        ("images/fine_tune", ["--weights", "none.safetensors"], ["none.safetensors"]),
        ("arithmetics/every_arithmetic", ["--arithmetics", "moon"], ["adder", "moon"]),
        ("arithmetics/every_arithmetic", ["--depth", "9"], ["--depth", "6 n + 2", "9"]),
        ("benchmarks/memory", ["--batch", "6"], ["--batch", "4", "6"]),
        ("benchmarks/memory", ["--depths", "9"], ["--depths", "6 n + 2", "9"]),
        ("benchmarks/memory", ["--variants", "fast"], ["--variants", "fast", "plain"]),
        ("benchmarks/own_term", ["--terms", "far"], ["--terms", "far", "near"]),
        ("benchmarks/speed", ["--layers", "lenet5-7"], ["--layers", "lenet5-7", "lenet5-16"]),
        ("benchmarks/speed", ["--networks", "lenet"], ["--networks", "lenet", "resnet20"]),
        ("deployment/deploy_adder", ["--bits", "9"], ["--bits", "2 to 8", "9"]),
        ("deployment/zoo", ["--models", "moonnet"], ["--models", "resnet50", "moonnet"]),
    ],
)
def test_other_bad_values(name, args, words, load_script, ended, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = ended(load_script(name), args)
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert all(word in err for word in words), err
    assert not list(tmp_path.iterdir())


def test_a_truncated_file_is_named_and_no_folder_is_left(load_script, ended, write_mnist, tmp_path):
    write_mnist(tmp_path, images=64)
    whole = (tmp_path / "t10k-images-idx3-ubyte").read_bytes()
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(whole[: len(whole) // 2])
    args = ["--dataset", "mnist", "--data-dir", tmp_path, "--out", tmp_path / "run"]
    status, _, err = ended(load_script("adder_vs_cnn"), args)
    assert status == 2 and "t10k-images-idx3-ubyte" in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.fixture
def untrained(monkeypatch, load_script):
    """`untrained(name)` is a script that compiles no training: `init` and `fit` only trace.

    They trace nothing for platforms but the CPU.
    """
    real_fit, real_init = runs.fit, training.init

    def init(*arguments, **options):
        with kernels.use("cpu"):
            state = jax.eval_shape(lambda: real_init(*arguments, **options))
        rng = np.random.default_rng(0)

        def filled(path, leaf):
            if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jax.random.key(0)
            positive = getattr(path[-1], "key", "") in ("scale", "var")
            numbers = rng.uniform(0.5 if positive else -1.5, 1.5, leaf.shape)
            return jax.numpy.asarray(numbers, leaf.dtype)

        state = jax.tree_util.tree_map_with_path(filled, state)
        return state._replace(step=jax.numpy.int32(0))

    metrics: list[str] = []  # of the first training, which alone is traced

    def fit(name, state, step, evaluate, train, test, *, epochs, folder, **options):
        inspect.signature(real_fit).bind(
            *(name, state, step, evaluate, train, test), epochs=epochs, folder=folder, **options
        )
        if "train_images" in json.loads((folder.path / "config.json").read_text()):
            assert isinstance(evaluate, Evaluation)  # so that the network is kept, and says
            notes = folder.notes  # how its images are prepared
            assert Preparation.of_notes(notes["images"]).shape == test[0].shape[1:]
            assert len(notes["classes"]) > int(test[1].max())
        if not metrics:
            batch = jax.tree.map(lambda array: np.asarray(array)[:4], test)
            with kernels.use("cpu"):
                after, trained = jax.eval_shape(step, state, batch)
                tested = jax.eval_shape(evaluate, state, batch)
            assert jax.tree.structure(after) == jax.tree.structure(state)
            metrics.extend(f"train_{key}" for key in trained if key != "nonfinite")
            metrics.extend(f"test_{key}" for key in tested)
        path = folder.checkpoints / name / "step_0"
        save(path, state)
        history = {key: [0.25] * epochs for key in (*metrics, "seconds")}
        tested_once = {key[5:]: 0.25 for key in metrics if key.startswith("test_")}
        chosen_on = "validation" if options.get("validation") else None
        return runs.Trained(state, history, 1, path, Outcome(epochs, chosen_on, tested_once))

    monkeypatch.setattr(runs, "fit", fit)
    monkeypatch.setattr(training, "init", init)

    def call(name):
        script = load_script(name)
        for stub in (fit, init):
            if hasattr(script, stub.__name__):
                monkeypatch.setattr(script, stub.__name__, stub)
        return script

    return call


class Small(NamedTuple):
    """A small run: its flags, what its result must hold, and files that it must leave."""

    args: list[str]
    holds: Callable[[dict[str, Any]], Any]
    files: tuple[str, ...] = ()


def column(result: dict[str, Any], *keys: str, table: str = "table") -> list[Any]:
    return [tuple(row[key] for key in keys) for row in result[table]]


def of_the_zoo(result):
    assert column(result, "model", "parameters") == [("lenet5", 61_942), ("lenet5_full", 61_706)]
    for row in result["table"]:  # all layers but the first and the classifier stop multiplying
        saved = row["CNN multiplications"] - row["AdderNet multiplications"]
        assert 240_000 < saved < 300_000


def of_pruning(result):
    assert column(result, "pruning") == [("none",), ("one-shot 2:4",), ("2:4",)]
    dense, *rest = (row["multiplications"] for row in result["table"])
    # Of 358,960 products of the layers between, whose weights are two thirds dense, half are left.
    assert all(0.5 < products / dense < 0.75 for products in rest)


def of_every_arithmetic(result):
    assert column(result, "arithmetic") == [("shift_ps",), ("adder",), ("lp_adder",)]
    shift, adder, _ = result["table"]
    assert adder["additions"] > shift["additions"] and adder["bit ops"] == 0 < shift["bit ops"]
    assert adder["parameter bytes"] > 5 * shift["parameter bytes"]  # 32 bits a weight, and 5
    assert [*result["histories"]] == ["shift_ps", "adder", "lp_adder"]


DIGITS = ["--dataset", "digits", "--epochs", "2", "--batch-size", "16"]
SMALL = {
    "adder/adder_cifar10": Small(
        [
            *(*DIGITS, "--networks", "BNN", "--on-nan", "skip"),
            *("--augment", "rand_augment", "--mix", "cutmix"),
        ],
        lambda result: column(result, "network", "test_accuracy", table="rows") == [("BNN", 25.0)],
        ("curves.png", "checkpoints/BNN/step_0"),
    ),
    "adder/adder_mnist_ablation": Small(
        ["--epochs", "2", "--batch-size", "16", "--cells", "CNN", "sign-x100", "--seeds", "0", "1"],
        lambda result: (
            column(result, "cell", "seed", table="rows")
            == [("CNN", 0), ("CNN", 1), ("sign-x100", 0), ("sign-x100", 1)]
        ),
    ),
    "adder/deep_vs_shallow": Small(
        ["--datasets", "digits", "--networks", "CNN", "--layers", "1", "2", "--epochs", "1"],
        lambda result: column(result, "layers", "shortcuts") == [(5, "no"), (8, "no"), (8, "yes")],
        ("curves.png",),
    ),
    "adder/pruning": Small(
        [*DIGITS, "--networks", "CNN", "--sparsities"], of_pruning, ("curves.png",)
    ),
    "arithmetics/every_arithmetic": Small(
        [*DIGITS, "--arithmetics", "shift_ps", "adder", "lp_adder"], of_every_arithmetic
    ),
    "arithmetics/posit_mnist": Small(
        [*DIGITS, "--cells", "posit8-warm-up", "--validation", "0.1", "--gradient-norm"],
        lambda result: column(result, "cell", "seed", table="rows") == [("posit8-warm-up", 0)],
    ),
    "deployment/zoo": Small(["--models", "lenet5", "lenet5_full"], of_the_zoo),
    "memory/learn_addition": Small(
        ["--epochs", "1", "--recurrent-epochs", "1", "--lengths", "4", "--batch-size", "8"],
        lambda result: column(result, "network", table="right / %") == [("LSTM",), ("NTM",)],
        ("curves.png",),
    ),
    "memory/ntm": Small(
        ["--task", "ngrams", "--epochs", "1", "--networks", "NTM", "--width", "4"],
        lambda result: column(result, "network", table="tests") == [("optimal",), ("NTM",)],
        ("curves.png", "NTM.png"),
    ),
    "anomaly/tutorial_lstm": Small(
        ["--tasks", "charts", "--epochs", "1", "--charts", "10"],
        lambda result: column(result, "parameters", "reloaded") == [(576, "same bits")],
        ("charts.safetensors",),
    ),
}
COSTLY = {"adder/adder_cifar10", "adder/deep_vs_shallow", "adder/pruning"}
COSTLY |= {"arithmetics/posit_mnist", "memory/learn_addition", "memory/ntm"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in COSTLY else ()) for name in SMALL],
)
def test_a_small_run(name, untrained, ended, write_mnist, tmp_path):
    args, holds, files = SMALL[name]
    if name == "adder/adder_mnist_ablation":
        write_mnist(tmp_path, images=64)
        args = [*args, "--data-dir", str(tmp_path)]
    script, out = untrained(name), tmp_path / "run"
    status, _, err = ended(script, [*args, "--out", out])
    assert (status, err) == (0, "")
    assert json.loads((out / "config.json").read_text())["out"] == str(out)
    result = json.loads((out / "result.json").read_text())
    assert {"command", "hardware", "versions", "config"} < result.keys()
    assert holds(result) is not False
    assert all((out / file).exists() for file in files)


def test_the_weights_of_every_arithmetic(untrained, ended, tmp_path):
    trained, out = tmp_path / "run", tmp_path / "weights"
    names = ["float", "shift_ps"]
    args = [*DIGITS, "--arithmetics", *names, "--out", trained]
    assert ended(untrained("arithmetics/every_arithmetic"), args)[0] == 0
    script = untrained("adder/weight_distributions")
    status, printed, err = ended(script, ["--trained", trained, "--out", out])
    assert (status, err) == (0, "") and "kurtosis" in printed
    result = json.loads((out / "result.json").read_text())
    assert column(result, "arithmetic") == [("float",), ("shift_ps",)]
    assert result["trained"]["arithmetics"] == names
    assert (out / "weights.png").is_file()


@pytest.mark.slow
def test_transfer_from_a_run_of_adder_cifar10(
    untrained, ended, write_pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(jax.config, "update", lambda *_: None)  # no cache in this process
    trained, out = tmp_path / "trained", tmp_path / "run"
    script = untrained("adder/adder_cifar10")
    write_pictures(tmp_path / "colours")
    args = ["--dataset", f"folder:{tmp_path / 'colours'}", "--batch-size", "8", "--epochs", "1"]
    assert ended(script, [*args, "--networks", "CNN", "--out", trained])[0] == 0
    args = ["--dataset", "digits", "--labels", "2", "4", "--seeds", "0", "1", "--epochs", "1"]
    args += ["--networks", "CNN", "--ways", "frozen", "--batch-size", "8", "--out", out]
    script = untrained("adder/transfer_learning")
    status, _, err = ended(script, [*args, "--pretrained", trained])
    assert (status, err) == (0, "")
    result = json.loads((out / "result.json").read_text())
    ran = column(result, "labels a class", "seed", table="rows")
    assert ran == [(2, 0), (2, 1), (4, 0)] and result["steps"] == 5  # of 40 images
    assert column(result, "seeds") == [(2,), (1,)]
    assert (out / "curves.png").is_file()
