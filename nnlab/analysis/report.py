"""One HTML page about trained networks that needs nothing but itself.

`write_report` puts the figures of `nnlab.analysis.plots` between a result table, a configuration
and the provenance of the numbers. Figures are inline SVG whose text and lines take the page's
colour, so one file reads in light mode, in dark mode and on paper; nothing is fetched.
"""

import html
import io
import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from nnlab.analysis.distributions import fit_weights
from nnlab.analysis.features import class_geometry
from nnlab.analysis.plots import (
    INK,
    MINUS,
    RULE,
    Network,
    figure_curves,
    figure_features,
    figure_weights,
)
from nnlab.errors import InputError

_CURVES = (
    "Solid: test, in evaluation mode; dashed: training. As long as the learning rate is high,"
    " BatchNorm's running statistics lag behind the weights, those of an adder network most: test"
    " figures of the first epochs understate it, and the dashed curve says how training goes. Loss"
    " is on a logarithmic axis; from five epochs on, the accuracy axis starts where the third epoch"
    " needs it, and earlier ones may lie below."
)
_WEIGHTS = (
    "Weights of each network's largest layer (of a binary one, the latent real weights) between"
    " their 0.1st and 99.9th percentiles, with the Laplace and Gaussian densities of highest"
    " likelihood; above each, the mean log-likelihood a weight over all of them."
)
_FEATURES = (
    "Test features before the classifier, in the plane that holds most of the variance of the class"
    " means (its share beside the axis); both axes have one scale, and the cross is the origin."
    " Accuracy: share of test features nearest to their own class, by angle to the mean direction"
    " and by L1 distance to the median centre of the training features, in all dimensions. Spread:"
    " mean distance to the own class over mean distance between classes; smaller is tighter."
)


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    networks: Sequence[Network],
    table: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> None:
    """Writes the report; an existing file is replaced only by a complete one.

    Args:
        path: the HTML file; missing folders are made.
        title: heading of the page.
        networks: what the figures show, in the order of colours.
        table: result rows with the same keys, which become the header.
        config: settings by name.
        provenance: what it takes to trust the numbers: command, seed, time, hardware, versions.
        notes: paragraphs of plain text.

    Raises:
        InputError: rows of the table differ in keys, or a network cannot be drawn.
    """
    if any(list(row) != list(table[0]) for row in table):
        headers = " and ".join(sorted({str(list(row)) for row in table}))
        raise InputError(f"rows of the result table have keys {headers}; expected the same keys.")
    verdicts = "".join(f"<li>{html.escape(verdict(network))}</li>" for network in networks)
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="provenance">{_provenance(provenance)}</p>',
        "<h2>Results</h2>" + _table(table) if table else "",
        "".join(f"<p>{html.escape(note)}</p>" for note in notes),
        "<h2>Learning curves</h2>",
        _figure(figure_curves(networks), "Loss and accuracy by epoch", _CURVES),
        "<h2>Weights</h2>",
        _figure(figure_weights(networks), "Histograms of weights", _WEIGHTS),
        f"<ul>{verdicts}</ul>",
        "<h2>Features</h2>",
        _figure(figure_features(networks), "Features in a plane", _FEATURES),
        _table([_geometry(network) for network in networks]),
        "<h2>Configuration</h2>",
        _table([{"setting": key, "value": str(value)} for key, value in config.items()]),
    ]
    page = _PAGE.format(title=html.escape(title), style=_STYLE, body="\n".join(sections))
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(target)


def verdict(network: Network) -> str:
    """The sentence that says which distribution a network's weights follow more closely."""
    fits = fit_weights(network.weights)
    better, worse = sorted(fits, key=lambda fit: fit.log_likelihood, reverse=True)
    sentence = (
        f"{better.family.capitalize()} fits better than {worse.family.capitalize()}:"
        f" {better.log_likelihood:.4f} against {worse.log_likelihood:.4f} nats a weight"
        f" over {np.size(network.weights):,} weights."
    )
    return f"{network.name}: {sentence.replace('-', MINUS)}"


def _geometry(network: Network) -> dict[str, Any]:
    cosine, l1 = class_geometry(
        network.train_features, network.train_labels, network.features, network.labels
    )
    return {
        "network": network.name,
        "accuracy by angle / %": 100 * cosine.accuracy,
        "accuracy by L1 / %": 100 * l1.accuracy,
        "spread by angle": cosine.spread,
        "spread by L1": l1.spread,
    }


def _provenance(provenance: Mapping[str, Any]) -> str:
    def text(value):
        return ", ".join(map(" ".join, value.items())) if isinstance(value, Mapping) else str(value)

    return " · ".join(
        f"{html.escape(str(key))} <code>{html.escape(text(value))}</code>"
        for key, value in provenance.items()
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    header = "".join(_cell("th", key, like=value) for key, value in rows[0].items())
    body = ["".join(_cell("td", value, like=value) for value in row.values()) for row in rows]
    lines = "".join(f"<tr>{line}</tr>" for line in [header, *body])
    return f'<div class="wide"><table>{lines}</table></div>'


def _cell(tag: str, value: Any, like: Any) -> str:
    side = ' class="number"' if _is_number(like) else ""
    text = str(value)
    if _is_number(value):
        text = f"{value:,}" if isinstance(value, Integral) else f"{value:.4g}"
        text = text.replace("-", MINUS)
    return f"<{tag}{side}>{html.escape(text)}</{tag}>"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _figure(figure: Figure, label: str, caption: str) -> str:
    text = io.StringIO()
    nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    with matplotlib.rc_context({"svg.hashsalt": label}):
        figure.savefig(text, format="svg", transparent=True, metadata=nothing, dpi=200)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(RULE, "var(--rule)")
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
    return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --ink: #24292f; --quiet: #59636e; --rule: #c9ced4;
  --paper: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe3e8; --quiet: #9aa4af; --rule: #444c56;
  --paper: #16191d; } }
body { max-width: 54rem; margin: 3rem auto; padding: 0 1.25rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; font-weight: 600; margin: 0 0 .4rem; }
h2 { font-size: 1.15rem; font-weight: 600; margin: 2.6rem 0 .8rem; break-after: avoid; }
.provenance, figcaption { color: var(--quiet); font-size: .85rem; }
code { font-family: ui-monospace, monospace; font-size: .95em; overflow-wrap: anywhere;
  color: var(--ink); }
figure { margin: 0; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { margin-top: .6rem; max-width: 44rem; }
ul { padding-left: 1.1rem; font-size: .92rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem;
  margin: .8rem 0; }
th, td { padding: .35rem 1.2rem .35rem 0; text-align: left; border-bottom: 1px solid var(--rule);
  vertical-align: top; }
.number { text-align: right; }
th { font-weight: 600; color: var(--quiet); }
td { overflow-wrap: break-word; max-width: 34rem; }
tr { break-inside: avoid; }
@media print { :root { color-scheme: light; --ink: #24292f; --quiet: #59636e; --rule: #c9ced4;
  --paper: #ffffff; font-size: 12px; } body { margin: 0; } .wide { overflow: visible; } }
"""
