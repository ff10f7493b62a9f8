"""Compare runs: mean and deviation over seeds, grouped by what differs in their configurations.

    nnlab compare runs/adder_vs_cnn_sweep
    nnlab compare runs/short runs/long --figure comparison.png

RUN is the folder of a run, or of a sweep (`nnlab sweep`), which stands for all its runs. Runs whose
configurations differ in --seed alone are a group, for each network that they train. The table gives
the mean over a group's runs ± the sample deviation (with n - 1), and n. The best epoch of a run is
that of its best validation accuracy or loss, where there is one, or of that on the test set, which
flatters. Where a validation set chose, the test set was measured once: "test accuracy / %, once".

With --all there are also the losses, both epochs of what was validated, and of the network that was
kept the mean F1 over classes and the expected calibration error. The figure shows evaluations by
epoch, with the deviation as a band. Runs without a result are left out, and named.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from nnlab import figures
from nnlab.errors import InputError, needs
from nnlab.figures.comparison import Group, figure_comparison
from nnlab.figures.tables import spread
from nnlab.paths import user_path, writing
from nnlab.runs.fields import Some, check_fields
from nnlab.runs.reading import PastRun, best, read_runs, shown
from nnlab.runs.run_folder import ASIDE
from nnlab.runs.script import run

with needs("runs"):
    import tyro

EVALUATED = ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss")
ONCE = {
    "accuracy": "test accuracy / %, once",
    "macro_f1": "mean F1 / %",
    "calibration_error": "calibration error / %",
}


@dataclasses.dataclass(frozen=True)
class Config:
    runs: Annotated[Some[str], tyro.conf.Positional, tyro.conf.arg(metavar="RUN…")]
    """Folders of runs and of sweeps."""
    over: tuple[str, ...] = ("seed",)
    """Fields of the configuration over which means are taken."""
    all: bool = False
    """Show all that was measured, not the score alone."""
    figure: str | None = None
    """File for a picture of the learning curves, such as comparison.png or .pdf."""

    def __post_init__(self):
        check_fields(self)


class Training(NamedTuple):
    """One network of one run."""

    run: PastRun
    network: str
    curves: dict[str, list[float]]


Groups = dict[tuple[str, ...], list[Training]]


def grouped(runs: Sequence[PastRun], over: Sequence[str]) -> tuple[list[str], Groups]:
    """Return the fields that differ, and the trainings by their values and their network's name.

    Raises:
        InputError: no run has curves.
    """
    configs = [
        {name.replace("-", "_"): json.dumps(value) for name, value in run.config.items()}
        for run in runs
    ]
    aside = {*ASIDE, *(name.replace("-", "_") for name in over)}
    names = {name: None for config in configs for name in config if name not in aside}
    differ = [name for name in names if len({config.get(name) for config in configs}) > 1]
    groups: Groups = {}
    for each in runs:
        values = [_text(each.config.get(name, "-")) for name in differ]
        for network, curves in each.curves.items():
            groups.setdefault((*values, network), []).append(Training(each, network, curves))
    if not groups:
        raise InputError("The runs hold no metrics.jsonl with an epoch; expected one or more.")
    return differ, groups


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def rows_of(differ: Sequence[str], groups: Groups, *, all: bool) -> list[dict[str, str]]:
    """Return the table, a row for each group; of the score alone, or of all that was measured."""
    every = [each for trainings in groups.values() for each in trainings]
    measured = [name for name in EVALUATED if any(name in each.curves for each in every)]
    found_once = {key for each in every for key in _tested(each)}
    if not all:
        found_once &= {"accuracy"}
        scored = {found.metric for each in every if (found := best(each.curves))}
        measured = [name for name in measured if name in scored]
    several = len({values[-1] for values in groups}) > 1
    rows = []
    for (*values, network), trainings in groups.items():
        row = dict(zip(differ, values, strict=True))
        if several or not differ:
            row["network"] = network
        row["n"] = str(len(trainings))
        found = [best(each.curves) for each in trainings]
        row["best epoch"] = spread([each.epoch for each in found if each], digits=1)
        for metric in measured:
            name, factor, digits = shown(metric)
            curves = [
                (at, each.curves[metric])
                for at, each in zip(found, trainings, strict=True)
                if each.curves.get(metric)
            ]
            row[f"{name}, best epoch"] = spread(
                [factor * curve[at.epoch - 1] for at, curve in curves if at], digits
            )
            if all or not metric.startswith("validation"):
                last = [factor * curve[-1] for _, curve in curves]
                row[f"{name}, last epoch"] = spread(last, digits)
        tests = [_tested(each) for each in trainings]
        for key, column in ONCE.items():
            if key in found_once:
                row[column] = spread([100 * test[key] for test in tests if key in test], digits=2)
        rows.append(row)
    return rows


def _tested(training: Training) -> dict[str, float]:
    """What the test says of the network that was kept; its accuracy where that is no curve."""
    measures = (training.run.result or {}).get("measures", {}).get(training.network, {})
    test = measures.get("test", {})
    keys = [key for key in ONCE if key in test]
    if "test_accuracy" in training.curves and "accuracy" in keys:
        keys.remove("accuracy")
    return {key: test[key] for key in keys}


def notes(groups: Groups, over: Sequence[str]) -> list[str]:
    """Return a sentence for each group whose runs are not alike in their epochs or seeds."""
    found = []
    for trainings in groups.values():
        lengths = sorted({len(next(iter(each.curves.values()))) for each in trainings})
        name = " and ".join(str(each.run.path) for each in trainings)
        if len(lengths) > 1:
            found.append(f"{name} have {' and '.join(map(str, lengths))} epochs.")
        seeds = [[each.run.config.get(field) for field in over] for each in trainings]
        if len({json.dumps(seed) for seed in seeds}) < len(seeds):
            fields = ", ".join(over)
            found.append(f"{name} do not all differ in {fields}: a deviation over fewer draws.")
    return found


def main(config: Config) -> None:
    runs = read_runs(config.runs)
    for each in runs:
        if each.result is None:
            print(f"{each.path} has no result and is left out.", file=sys.stderr)
    runs = [each for each in runs if each.result is not None]
    if not runs:
        raise InputError("No run has a result.json; expected one or more.")
    differ, groups = grouped(runs, config.over)
    for note in notes(groups, config.over):
        print(note, file=sys.stderr)
    figures.print_table(rows_of(differ, groups, all=config.all))
    if config.figure:
        draw(user_path(config.figure), differ, groups)


def draw(path: Path, differ: Sequence[str], groups: Groups) -> None:
    """Save the learning curves.

    Raises:
        InputError: there are too many groups, or the file cannot be written.
    """
    several = len({values[-1] for values in groups}) > 1
    shown = []
    for (*values, network), trainings in groups.items():
        words = [f"{name} {value}" for name, value in zip(differ, values, strict=True)]
        words = [network, *words] if several or not differ else words
        name = f"{', '.join(words)} (n = {len(trainings)})"
        shown.append(Group(name, [each.curves for each in trainings]))
    everywhere = [
        name for name in EVALUATED if all(h.get(name) for group in shown for h in group.histories)
    ]
    figure = figure_comparison(shown, everywhere)
    try:
        with writing(path):
            figure.savefig(path, dpi=150)
    except ValueError as error:  # an ending that matplotlib does not know
        raise InputError(f"{path} cannot be written: {error}.") from error
    print(f"Figure: {path}")


if __name__ == "__main__":
    run(main, Config)
