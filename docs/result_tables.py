"""Tables of the committed results in Markdown: a result's "table", or what suits it better."""

import importlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"
sys.path[:0] = [str(ROOT), str(EXPERIMENTS / "benchmarks")]

from nnlab.figures.tables import markdown_table  # noqa: E402

Row = dict[str, Any]
Tables = dict[str, str]  # caption, or "" where there is one table only: Markdown


def result(stem: str) -> dict[str, Any]:
    """Return a result, found by the name of its file."""
    (path,) = EXPERIMENTS.rglob(f"results/{stem}.json")
    return json.loads(path.read_text())


def tables(stem: str) -> Tables:
    """Return the tables of a result."""
    return TABLES.get(stem, _table)(result(stem))


def _table(found: Mapping) -> Tables:
    rows = found["table"]
    if len(rows) == 1:  # would be wider than a page
        rows = [{"": key, "value": value} for key, value in rows[0].items()]
    return {"": markdown_table(_rectangular(rows))}


def _rectangular(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the rows with all the keys of any, and an empty text where a row has none."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key, "") for key in keys} for row in rows]


def _pick(rows: Iterable[Mapping[str, Any]], **names: str) -> str:
    """Return a table of some columns: `column_of_the_result="name in the table"`."""
    return markdown_table([{new: row[old] for old, new in names.items()} for row in rows])


def _pivot(rows: Iterable[Mapping], by: Callable[[Mapping], str], column: str, value: str) -> str:
    """Return a table with a row for each `by` and a column for each value of `column`."""
    table: dict[str, Row] = {}
    for row in rows:
        table.setdefault(by(row), {"": by(row)})[str(row[column])] = row[value]
    return markdown_table(_rectangular(list(table.values())))


PUBLISHED = {  # test accuracies of AdderNet, CVPR 2020, section 4.1 and table 2
    "mnist": {
        "CNN": "99.40",
        "full-adaptive": "99.40",
        "sign-adaptive": "97.99",
        "full-x100": "98.99",
        "sign-x100": "97.72",
        "full-plain": "54.91",
        "sign-plain": "29.26",
    },
    "cifar10": {"CNN": "92.25", "AdderNet": "91.84", "BNN": "84.87"},
}


def _adder_cifar10(found: Mapping) -> Tables:
    epochs, seed = found["config"]["epochs"], found["config"]["seed"]
    return {
        "": markdown_table(
            [
                {
                    "network": row["network"],
                    "published, 400 epochs / %": PUBLISHED["cifar10"][row["network"]],
                    f"ours, {epochs} epochs, seed {seed} / %": row["test_accuracy"],
                    "minutes": row["minutes"],
                }
                for row in found["rows"]
            ]
        )
    }


def _adder_mnist_ablation(found: Mapping) -> Tables:
    rows = [*found["rows"], *result("adder_mnist_seeds")["rows"]]
    table = []
    for first in found["rows"]:
        row = {"cell": first["cell"], "published / %": PUBLISHED["mnist"][first["cell"]]}
        for seed in (0, 1, 2):
            ours = [r for r in rows if (r["cell"], r["seed"]) == (first["cell"], seed)]
            row[f"seed {seed} / %"] = f"{ours[0]['test_accuracy']:.2f}" if ours else ""
        table.append(row | {"minutes": first["minutes"]})
    return {"": markdown_table(table)}


def _arithmetics_cifar10(found: Mapping) -> Tables:
    mnist = {row["arithmetic"]: row for row in result("arithmetics_mnist")["table"]}
    rows: list[Row] = []
    for row in found["table"]:
        name, accuracy, *others = row.items()
        ours = mnist.pop(row["arithmetic"])["test accuracy / %"]
        rows.append(dict([name, ("MNIST / %", ours), ("CIFAR-10 / %", accuracy[1]), *others]))
    rows += [
        {"arithmetic": name, "MNIST / %": row["test accuracy / %"]} for name, row in mnist.items()
    ]
    return {"": markdown_table(_rectangular(rows))}


def _anomaly_hdfs(found: Mapping) -> Tables:
    best: dict[str, Row] = {}
    for row in found["table"]:
        if row["F1 / %"] > best.get(row["detector"], {"F1 / %": -1})["F1 / %"]:
            best[row["detector"]] = row
    ninth = [row for row in found["table"] if row["threshold"] == 9 and "LSTM" in row["detector"]]
    return {
        "each at its best threshold": markdown_table(list(best.values())),
        "at the paper's threshold, k = 9": markdown_table(
            [row for row in ninth if "surprise" not in row["detector"]]
        ),
    }


def _own_term(found: Mapping) -> Tables:
    rows = [row for row in found["rows"] if row["body"] != "adder's own"]
    whole = [row for row in found["rows"] if row["pass"] == "forward + backward"]

    def sort(row: Mapping) -> str:
        return f"{row['layer']}, {row['pass']}, {row['term']}"

    return {
        "processor time, in that of the adder's own kernel": _pivot(
            rows, sort, "body", "of its processor time"
        ),
        "memory of forward and backward pass / MB": _pivot(
            whole, lambda row: f"{row['layer']}, {row['term']}", "body", "megabytes"
        ),
    }


def _ntm(found: Mapping) -> Tables:
    rows = []
    for run in found["runs"]:
        for training in run["trainings"]:
            tests = [t for t in run["tests"] if t["network"] == training["network"]]
            trained, *others = tests
            rows.append(
                {
                    "task": run["config"]["task"].replace("_", " "),
                    "network": training["network"],
                    "seed": run["config"]["seed"],
                    "parameters": training["parameters"],
                    "sequences": training["sequences"],
                    "minutes": training["minutes"],
                    "bits": trained["bits"],
                    "right / %": trained["right / %"],
                    "right / % on others": ", ".join(
                        f"{t['test']}: {t['right / %']:.0f}" for t in others
                    ),
                }
            )
    return {"bits a sequence and sequences that are wholly right": markdown_table(rows)}


def _char_lm(found: Mapping) -> Tables:
    keep = (
        *("corpus", "network", "arithmetic", "parameters", "validation loss / nats"),
        *("test loss / nats", "validation bits a character", "seconds / epoch"),
    )
    rows = []
    for run in found["runs"]:
        (row,) = run["table"]
        row = {key: row.get(key, "") for key in keep}
        if run["config"].get("norm"):
            row["network"] += ", LayerNorm"
        rows.append(row | {"epochs": run["config"]["epochs"]})
    return {"": markdown_table(rows)}


def _one_neuron(found: Mapping) -> Tables:
    return {
        "Boolean functions that one neuron computes": _table(found)[""],
        "hidden units and outputs of XOR by two layers": markdown_table(found["xor"]),
    }


def _what_a_layer_sees(found: Mapping) -> Tables:
    return {
        "what layers see": _table(found)[""],
        "maximisers of first layers": markdown_table(found["first layers"]),
    }


def _perceptrons(found: Mapping) -> Tables:
    gates = [{k: v for k, v in row.items() if k[-5:] != "epoch"} for row in found["gates"]]
    return {"gates": markdown_table(gates), "MNIST": _table(found)[""]}


def _by_hand(found: Mapping) -> Tables:
    return {
        "two layers, one step": markdown_table(found["two layers"]),
        "errors after more steps": markdown_table(found["errors"]),
        "a recurrent cell, three steps of time": markdown_table(found["cell"]),
        "against `jax.grad`, in float64": markdown_table(found["against jax.grad"]),
    }


def _hopfield(found: Mapping) -> Tables:
    return {
        "random patterns": _table(found)[""],
        "ten digits from their upper halves": markdown_table(found["digits"]),
    }


def _rbm(found: Mapping) -> Tables:
    bars = [{k: v for k, v in row.items() if k != "curve"} for row in found["bars"]]
    return {
        "bars and stripes, mean log-likelihood in nats": markdown_table(bars),
        "MNIST": markdown_table(found["digits"]),
    }


def _why_convolution(found: Mapping) -> Tables:
    seeds = found["config"]["seeds"]
    rows = [
        {k: v for k, v in row.items() if len(seeds) > 1 or "all seeds" not in k}
        for row in found["table"]
    ]
    return {
        "networks of equal units": markdown_table(rows),
        "test accuracy / % by the shift of the images in pixels": markdown_table(
            found["accuracy by shift"]
        ),
    }


def _optimisers_on_surfaces(found: Mapping) -> Tables:
    return {
        "on surfaces": _table(found)[""],
        "biases and decay: cross-entropy on the digits, error on the curve": markdown_table(
            found["biases"]
        ),
    }


def _function_fitting(found: Mapping) -> Tables:
    return {
        "methods": _table(found)[""],
        "root mean square error by units": markdown_table(found["approximation"]),
    }


def _genetic_start(found: Mapping) -> Tables:
    names = {
        "of processor / s": "search / s",
        "steps": "steps",
        "of processor, too / s": "training / s",
        **{name: name for name in ("loss at start", "log10 of loss", "test error / %")},
    }
    names = {name: name for name in ("problem", "network", "start", "evaluations")} | names
    return {
        "starts, with seconds of the processor": _pick(found["table"], **names),
        "differences by seed": markdown_table(found["differences"]),
    }


def _sign_direction(found: Mapping) -> Tables:
    layers = [
        {
            "network": network,
            "layer": layer,
            "weights": row["weights"],
            "least cosine": min(row["cosine"]),
            "1 / sqrt(weights)": row["weights"] ** -0.5,
        }
        for network, rows in found["networks"].items()
        for layer, row in rows.items()
    ]
    return {
        "cosine of a gradient and its sign": markdown_table(layers),
        "three functions after 1,000 steps": markdown_table(found["examples"]),
    }


def _rows_of_cells(found: Mapping) -> Tables:
    names = {"cell": "cell", "test_accuracy": "test accuracy / %", "minutes": "minutes"}
    return {"": _pick(found["rows"], **names)}


def _scalars(found: Mapping) -> Tables:
    rows = [
        {key: value for key, value in row.items() if not isinstance(value, list)}
        for row in found["rows"]
    ]
    return {"": markdown_table(rows)}


def _recurrent(found: Mapping) -> Tables:
    rows = [
        {
            "body": row["body"],
            "ms / step": row["milliseconds a step"],
            "times nnlab's": row["of nnlab LSTM"],
            "characters / s": round(row["characters a second"]),
            "of the matrix product / %": 100 * row["of the matrix product"],
        }
        for row in found["rows"]
    ]
    return {"": markdown_table(rows)}


def _language_models(found: Mapping) -> Tables:
    rows = sorted(
        (row for row in found["rows"] if row["steps"] == found["config"]["steps"]),
        key=lambda row: row["rate"],
    )
    first = [row for row in rows if row["seed"] == found["config"]["seeds"][0]]
    return {
        "at the best rate": markdown_table(found["table"]),
        "validation loss / nats of the first seed, by the peak rate": _pivot(
            first, lambda row: row["network"], "rate", "loss"
        ),
    }


def _memory(found: Mapping) -> Tables:
    rows = [
        {
            "ResNet": row["depth"],
            "step": row["variant"],
            "compiled MB": round(row["compiled_bytes"] / 1e6),
            "grown MB": round(row["grown_bytes"] / 1e6),
            "s / step": round(row["median"], 2),
        }
        for row in found["rows"]
    ]
    return {"": markdown_table(rows)}


def _decoder(found: Mapping) -> Tables:
    written = [row for row in found["rows"] if row["what"] != "training step"]
    names = {
        "what": "what",
        "body": "body",
        "symbols a second": "symbols / s",
        "times PyTorch float32": "times PyTorch float32",
        "times PyTorch dynamic int8": "times its int8",
        "times unpacked to floats": "times unpacked",
        "bound": "bound by bytes",
        "milliseconds of the prompt": "prompt / ms",
        "prompt times PyTorch float32": "prompt, times float32",
    }
    steps = [row for row in found["rows"] if row["what"] == "training step"]
    steps = [{key: row[key] for key in row if key != "what"} for row in steps]
    tables = {"12 blocks of 768 features, one text, one thread": _columns(written, names)}
    return tables | ({"training step, nanoGPT for a CPU": markdown_table(steps)} if steps else {})


def _ternary(found: Mapping) -> Tables:
    names = {
        "what": "what",
        "threads": "threads",
        "body": "body",
        "ms": "ms",
        "Gterm/s": "Gterm/s",
        "of the limit": "of vpdpbusd's limit",
        "of bytes read": "of the read bandwidth",
        "times PyTorch float32": "times PyTorch float32",
        "times PyTorch dynamic int8": "times its int8",
    }
    rows = [
        {key: "" if value is None else value for key, value in row.items()}
        | {"ms": 1e3 * row["median"], "Gterm/s": row["terms_per_second"] / 1e9}
        for row in found["rows"]
    ]
    return {"": _columns(rows, names)}


def _columns(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    return markdown_table([{new: row[old] for old, new in names.items()} for row in rows])


BORROWED = ("resnet20", "addernet", "resnet56")  # with weights of others


def _borrowed_weights(found: Mapping) -> Tables:
    tables = [*(result(f"borrowed_{name}")["table"] for name in BORROWED), found["table"]]
    return {"": markdown_table([row for table in tables for row in table])}


TABLES: dict[str, Callable[[Mapping], Tables]] = {
    **{f"borrowed_{name}": lambda found: {} for name in BORROWED},
    "borrowed_weights": _borrowed_weights,
    "adder_cifar10": _adder_cifar10,
    "adder_mnist_ablation": _adder_mnist_ablation,
    "adder_mnist_seeds": lambda found: {},  # in the table above
    "adder_cifar10_weights": lambda found: {},  # in the table of trained weights
    "deploy_adder_weights": lambda found: {},  # likewise
    "adder_cifar10_bnn": lambda found: {},  # likewise
    "deploy_bnn_weights": lambda found: {},  # likewise
    "adder_mnist_weights": lambda found: {},  # in the table of trained weights
    "anomaly_hdfs": _anomaly_hdfs,
    "arithmetics_cifar10": _arithmetics_cifar10,
    "arithmetics_mnist": lambda found: {},  # in the table above
    "char_lm": _char_lm,
    "decoder": _decoder,
    "deep_vs_shallow": lambda found: {
        "test accuracy / % by the number of layers": _pivot(
            [
                row | {"layers": f"{row['layers']}{', shortcuts' * (row['shortcuts'] != 'no')}"}
                for row in found["table"]
            ],
            lambda row: f"{row['data']}, {row['network']}",
            "layers",
            "test accuracy / %",
        )
    },
    "java_brackets": lambda found: {
        "closing brackets, by depth": markdown_table(found["table"]),
        "files that each writes": markdown_table(found["files"]),
    },
    "language_models": _language_models,
    "learn_addition": lambda found: {
        "largest error among 200 sums": markdown_table(found["numbers"]),
        "binary sums that are right / %": markdown_table(found["right / %"]),
    },
    "memory": _memory,
    "ntm": _ntm,
    "own_term": _own_term,
    "pipeline": lambda found: {
        "images a second": _pivot(
            [row | {"images": round(row["images_per_second"])} for row in found["rows"]],
            lambda row: row["what"],
            "way",
            "images",
        )
    },
    "posit_mnist": _rows_of_cells,
    "recurrent": _recurrent,
    "sign_direction": _sign_direction,
    "one_neuron": _one_neuron,
    "what_a_layer_sees": _what_a_layer_sees,
    "perceptrons": _perceptrons,
    "by_hand": _by_hand,
    "function_fitting": _function_fitting,
    "optimisers_on_surfaces": _optimisers_on_surfaces,
    "genetic_start": _genetic_start,
    "hopfield": _hopfield,
    "rbm": _rbm,
    "why_convolution": _why_convolution,
    "sign_optimizers": _scalars,
    "speed": lambda found: {"": importlib.import_module("tables").markdown(found)},
    "ternary": _ternary,
    "transfer_learning": lambda found: {
        "test accuracy / % by labels a class": _pivot(
            found["table"],
            lambda row: f"{row['network']}, {row['way']}",
            "labels a class",
            "test accuracy / %",
        )
    },
    "vanishing_gradients": _scalars,
}
