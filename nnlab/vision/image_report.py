"""The report of a run on images: who was tested on what, by whom chosen, and what it gets wrong.

`write_image_report` is the last line of a script:

    with config.open(notes=images.notes) as record:
        …
        vision.write_image_report(record, images, table=record.rows())

It reads what `nnlab.runs.fit` left in the folder (`metrics.jsonl` and `measures.json`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnlab.errors import needs
from nnlab.runs import hosts
from nnlab.runs.reading import read_run
from nnlab.runs.run import Record
from nnlab.vision.image_run import Images

_DRAWN = 6  # networks
_ROWS = 100  # classes of a table
_PICTURES = 12
_UNKNOWN = (
    "The learning rate of {} is not known: the optimiser is no recipe of nnlab.optim and does not"
    " keep it in its state, and fit was given no schedule (learning_rate=)."
)
_CONFUSION = (
    "Rows are true classes; the shade is the square root of the part of the class, so that rare"
    " confusions are seen."
)
_RELIABILITY = (
    "Filled: the part of predictions that is right, by their confidence (the largest softmax of the"
    " outputs); on the dotted line confidence is what it says. Outline: the part of all examples."
)
_OPTIMISATION = {
    "learning rate": "Learning rate: that of each epoch's last step.",
    "gradient norm": "Norm of the gradient: its mean over the steps of each epoch.",
}


def write_image_report(
    record: Record,
    images: Images,
    *,
    table: Sequence[Mapping[str, Any]] = (),
    title: str | None = None,
) -> None:
    """Write `report.html` of a run whose networks have been trained on these images.

    Args:
        record: of the run.
        images: what they were trained on.
        table: result rows with the same keys.
        title: heading of the page; by default names the data set.

    Raises:
        InputError: a file of the run is damaged, or the report cannot be written.
    """
    with needs("figures"):
        from nnlab.figures import page

    if not hosts.is_writer():
        return
    contents = record.contents
    settings = [{"setting": k, "value": str(v)} for k, v in contents["config"].items()]
    page.write_page(
        record.folder.report,
        title=title or f"Networks trained on {images.name}",
        provenance={key: v for key, v in contents.items() if key in _PROVENANCE},
        sections=[
            page.heading("Results") + page.table(table) if table else "",
            *image_sections(record, images, curves=True),
            page.heading("Configuration"),
            page.table(settings),
        ],
    )
    print(f"Report: {record.folder.report}")


_PROVENANCE = ("command", "hardware", "versions")


def image_sections(record: Record, images: Images, *, curves: bool = False) -> list[str]:
    """Return the sections of a report about the tests of a run's networks.

    Args:
        record, images: as for `write_image_report`.
        curves: whether learning curves are among them.

    Raises:
        InputError: a file of the run is damaged.
    """
    with needs("figures"):
        from nnlab.figures import classification, page

    measured = record.folder.measures()
    histories = read_run(record.folder.path).curves
    histories = {name: histories[name] for name in measured if name in histories}
    sections = [page.heading("Images"), page.table(_counts(images))]
    if not measured:
        return sections
    sections += [
        page.heading("Test"),
        page.bullets([f"{name}: {_protocol(each, images)}" for name, each in measured.items()]),
        page.table([_scores(name, each) for name, each in measured.items()]),
    ]
    if curves:
        sections += _curves(histories)
    sections += _optimisation(histories)
    tests = {name: each["test"] for name, each in measured.items() if "reliability" in each["test"]}
    shown = dict(list(tests.items())[:_DRAWN])
    if not shown:
        return sections
    if len(tests) > len(shown):
        sections.append(page.paragraph(f"What follows is of the first {len(shown)} networks."))
    names = images.class_names
    whole = {name: test["confusion"] for name, test in shown.items() if "confusion" in test}
    sections.append(page.heading("Confusion"))
    if whole:
        figure = classification.figure_confusion(whole, names)
        sections.append(page.picture(figure, "Confusion matrices", _CONFUSION))
    else:
        rows = [
            {"network": name, "true": names[a], "predicted": names[b], "images": number}
            for name, test in shown.items()
            for a, b, number in test["confusions"]
        ]
        sections.append(page.table(rows))
    sections += [page.heading("Classes"), *_classes(shown, names)]
    bins = {name: test["reliability"] for name, test in shown.items()}
    figure = classification.figure_reliability(bins)
    sections += [
        page.heading("Confidence"),
        page.picture(figure, "Accuracy by confidence", _RELIABILITY),
        page.heading("Most confident errors"),
    ]
    for name in shown:
        sections += _wrong(name, measured[name]["errors"], images)
    return sections


def _wrong(name: str, errors: Sequence[Mapping[str, Any]], images: Images) -> list[str]:
    """Pictures of the most confident errors of a network, and where they are."""
    from nnlab.figures import page
    from nnlab.figures.classification import Wrong, figure_wrong

    if not errors:
        return [page.paragraph(f"{name} has every test image right.")]
    names, errors = images.class_names, errors[:_PICTURES]
    wrong = [
        Wrong(
            images.preparation.pixels(images.test[0][each["example"]]),
            *(names[each["true"]], names[each["predicted"]], each["confidence"]),
        )
        for each in errors
    ]
    caption = (
        f"{name}: the true class, what it was taken for, and the confidence; the table has them in"
        " the same order. Test images are counted from 0."
    )
    rows = [
        {"test image": each["example"]}
        | ({"file": images.test_files[each["example"]]} if images.test_files else {})
        | {"true": some.true, "taken for": some.predicted, "confidence / %": 100 * some.confidence}
        for each, some in zip(errors, wrong, strict=True)
    ]
    picture = page.picture(figure_wrong(wrong), f"Wrong predictions of {name}", caption)
    return [picture, page.table(rows)]


def _counts(images: Images) -> list[dict[str, Any]]:
    """A row for each class, and one for all."""
    counts = images.counts
    whole = {"class": "all"} | {split: int(np.sum(each)) for split, each in counts.items()}
    rows = [
        {"class": name}
        | {split: each[i] if isinstance(each, list) else "" for split, each in counts.items()}
        for i, name in enumerate(images.class_names[:_ROWS])
    ]
    return [whole, *rows]


def _protocol(found: Mapping[str, Any], images: Images) -> str:
    """Say on which images the network was chosen."""
    count = found["test"].get("examples", len(images.test[1]))
    if found["chosen_on"] == "validation" and images.validation is not None:
        chosen = len(images.validation[1])
        return (
            f"epoch {found['epoch']}, the best on {chosen:,} validation images, which no step has"
            f" seen; its {count:,} test images were measured once, in the end."
        )
    if found["chosen_on"] == "test":
        return (
            f"epoch {found['epoch']}, the best on the {count:,} test images themselves, which"
            " flatters it; --validation sets images aside to choose by."
        )
    return (
        f"the last epoch, {found['epoch']}; no epoch was chosen. The {count:,} test images were"
        " measured after every epoch."
    )


def _scores(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    test, percent = found["test"], "accuracy / %"
    row: dict[str, Any] = {"network": name, "epoch": found["epoch"]}
    if "accuracy" in found.get("validation", {}):
        row[f"validation {percent}"] = 100 * found["validation"]["accuracy"]
    if "accuracy" in test:
        row[f"test {percent}"] = 100 * test["accuracy"]
    if "top_5" in test:
        row["among first five / %"] = 100 * test["top_5"]
    if "macro_f1" in test:
        row["mean F1 / %"] = 100 * test["macro_f1"]
        row["calibration error / %"] = 100 * test["calibration_error"]
    return row


def _curves(histories: Mapping[str, dict[str, list[float]]]) -> list[str]:
    from nnlab.figures import page
    from nnlab.figures.plots import COLOURS, Curve, figure_curves
    from nnlab.figures.report import CURVES

    drawn = [Curve(name, each) for name, each in histories.items()][: len(COLOURS)]
    if not drawn or not all("train_accuracy" in each.history for each in drawn):
        return []
    picture = page.picture(figure_curves(drawn), "Loss and accuracy by epoch", CURVES)
    return [page.heading("Learning curves"), picture]


def _optimisation(histories: Mapping[str, dict[str, list[float]]]) -> list[str]:
    from nnlab.figures import page
    from nnlab.figures.panels import Line, Panel, figure_panels
    from nnlab.figures.plots import COLOURS

    panels = []
    for key, title in (
        ("learning_rate", "learning rate"),
        ("train_gradient_norm", "gradient norm"),
    ):
        some = {name: each[key] for name, each in histories.items() if len(each.get(key, [])) > 1}
        if len(some) > 1 and all(each == next(iter(some.values())) for each in some.values()):
            some = {"all alike": next(iter(some.values()))}
        lines = [
            Line(name, np.arange(1, 1 + len(values)), values, number)
            for number, (name, values) in enumerate(list(some.items())[: len(COLOURS)])
        ]
        if lines:
            panels.append(Panel(title, "epoch", title, lines))
    sections = []
    if panels:
        figure = figure_panels(panels)
        figure.set_size_inches(8.4, 3)
        caption = " ".join(_OPTIMISATION[panel.title] for panel in panels)
        picture = page.picture(figure, "Learning rate and gradient", caption)
        sections = [page.heading("Optimisation"), picture]
    unknown = [name for name, each in histories.items() if "learning_rate" not in each]
    return sections + [page.paragraph(_UNKNOWN.format(", ".join(unknown)))] * bool(unknown)


def _classes(tests: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """A table with a row for each class, or those of the least accuracy if there are many."""
    from nnlab.figures import page

    columns = ("accuracy", "precision", "f1") if len(tests) == 1 else ("accuracy", "f1")
    figures = {
        (name, key): np.array(test[f"class_{key}"], float)
        for name, test in tests.items()
        for key in columns
    }
    means = np.mean([each for (_, key), each in figures.items() if key == "accuracy"], axis=0)
    order = list(range(len(names)))
    note = ""
    if len(names) > _ROWS:
        order = np.argsort(np.nan_to_num(means, nan=np.inf), kind="stable")[:_ROWS].tolist()
        note = f"The {_ROWS} classes of least accuracy, of {len(names)}."
    rows = []
    for i in order:
        row: dict[str, Any] = {"class": names[i]}
        for (name, key), each in figures.items():
            before = "" if len(tests) == 1 else f"{name} "
            shown = "F1" if key == "f1" else key
            row[f"{before}{shown} / %"] = "-" if np.isnan(each[i]) else 100 * each[i]
        rows.append(row)
    return [page.table(rows), page.paragraph(note)] if note else [page.table(rows)]
