"""One HTML page (`nnlab.figures.page`) about trained networks.

`write_report` puts the figures of `nnlab.figures.plots` between a result table, a configuration
and the provenance of the numbers.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnlab.errors import InputError
from nnlab.figures import page
from nnlab.figures.distributions import fit_weights
from nnlab.figures.features import class_geometry
from nnlab.figures.page import (
    bullets,
    heading,
    paragraph,
    picture,
    write_page,
)
from nnlab.figures.plots import (
    MINUS,
    Network,
    figure_curves,
    figure_features,
    figure_weights,
)

CURVES = (
    "Solid: in evaluation mode; dashed: training. As long as the learning rate is high,"
    " BatchNorm's running statistics lag behind the weights, those of an adder network most: test"
    " figures of the first epochs understate it, and the dashed curve says how training goes. Loss"
    " is on a logarithmic axis where it falls to a quarter; from five epochs on, the accuracy axis"
    " starts where the third epoch needs it, and earlier ones may lie below."
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
    sections: Sequence[str] = (),
) -> None:
    """Write the report; an existing file is replaced only by a complete one.

    Args:
        path: the HTML file; missing folders are made.
        title: heading of the page.
        networks: what the figures show, in the order of their colours.
        table: result rows with the same keys, which become the header.
        config: settings by name.
        provenance: where the numbers come from: command, seed, time, hardware, versions.
        notes: paragraphs of plain text.
        sections: results of `nnlab.figures.page`, placed after the learning curves.

    Raises:
        InputError: rows of the table differ in keys, or a network cannot be drawn.
    """
    if any(list(row) != list(table[0]) for row in table):
        headers = " and ".join(sorted({str(list(row)) for row in table}))
        raise InputError(f"rows of the result table have keys {headers}; expected the same keys.")
    parts = [
        heading("Results") + page.table(table) if table else "",
        "".join(map(paragraph, notes)),
        heading("Learning curves"),
        picture(figure_curves(networks), "Loss and accuracy by epoch", CURVES),
        *sections,
        heading("Weights"),
        picture(figure_weights(networks), "Histograms of weights", _WEIGHTS),
        bullets([verdict(network) for network in networks]),
        heading("Features"),
        picture(figure_features(networks), "Features in a plane", _FEATURES),
        page.table([_geometry(network) for network in networks]),
        heading("Configuration"),
        page.table([{"setting": key, "value": str(value)} for key, value in config.items()]),
    ]
    write_page(path, title=title, provenance=provenance, sections=parts)


def verdict(network: Network) -> str:
    """Say in a sentence which distribution a network's weights follow more closely."""
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
