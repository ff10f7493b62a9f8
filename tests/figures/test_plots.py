"""Figures hold the numbers that they were given, and their texts do not collide."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex, to_rgba_array
from matplotlib.patches import StepPatch

from nnlab.errors import InputError
from nnlab.figures.plots import (
    COLOURS,
    HISTORY,
    Network,
    Weights,
    figure_curves,
    figure_features,
    figure_weights,
)

FIGURES = [figure_curves, figure_weights, figure_features]


def network(name="AdderNet", epochs=8, width=2, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(200) % 10
    features = rng.normal(size=(10, width))[labels] + 0.1 * rng.normal(size=(200, width))
    loss, accuracy = list(2.0 * 0.7 ** np.arange(epochs)), list(1 - 0.8 * 0.3 ** np.arange(epochs))
    return Network(
        name=name,
        history=dict(zip(HISTORY, (loss, accuracy, loss, accuracy), strict=True)),
        weights=rng.laplace(size=5000),
        features=features,
        labels=labels,
        train_features=features,
        train_labels=labels,
    )


def test_curves_show_the_history_in_percent():
    one = network(epochs=4)
    loss_axes, accuracy_axes = figure_curves([one]).axes
    train, test = accuracy_axes.lines
    np.testing.assert_array_equal(test.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_allclose(
        np.asarray(test.get_ydata()), 100 * np.array(one.history["test_accuracy"])
    )
    np.testing.assert_allclose(np.asarray(loss_axes.lines[1].get_ydata()), one.history["test_loss"])
    assert (loss_axes.get_xlabel(), accuracy_axes.get_ylabel()) == ("epoch", "accuracy / %")
    # Losses fall to a third here, and to less than a quarter in eight epochs.
    assert loss_axes.get_yscale() == "linear"
    assert figure_curves([network(epochs=8)]).axes[0].get_yscale() == "log"
    assert train.get_linestyle() != test.get_linestyle()


def test_curves_are_of_the_validation_set_where_that_was_evaluated():
    one = network(epochs=4)
    history = {key.replace("test", "validation"): each for key, each in one.history.items()}
    figure = figure_curves([one._replace(history=history)])
    np.testing.assert_allclose(
        np.asarray(figure.axes[0].lines[1].get_ydata()), one.history["test_loss"]
    )
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["AdderNet", "validation", "training"]


def test_accuracy_axis_starts_at_the_third_epoch_of_long_runs_only():
    def bottom(epochs):
        return figure_curves([network(epochs=epochs)]).axes[1].get_ylim()[0]

    # 20, 76, 92.8 % and more in the first epochs
    assert bottom(4) < 20
    assert 76 < bottom(8) < 92.8


def test_a_network_keeps_its_colour():
    networks = [network("AdderNet"), network("CNN")]
    curves, weights = figure_curves(networks).axes[0], figure_weights(networks)
    for axes, test_line, colour in zip(weights.axes, curves.lines[1::2], COLOURS, strict=False):
        (histogram,) = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
        assert to_hex(histogram.get_facecolor()) == test_line.get_color() == colour


def test_histograms_of_more_networks_than_colours():
    rng = np.random.default_rng(0)
    figure = figure_weights([Weights(f"network {i}", rng.normal(size=99)) for i in range(13)])
    assert [axes.get_title(loc="left").split("\n")[0] for axes in figure.axes] == [
        f"network {i}" for i in range(13)
    ]


def test_histogram_is_a_density_of_all_weights():
    one = network()
    (axes,) = figure_weights([one]).axes
    (histogram,) = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    density, edges, _ = histogram.get_data()
    assert np.sum(density * np.diff(edges)) == pytest.approx(0.998, abs=0.001)
    laplace = axes.lines[0]
    assert np.max(laplace.get_ydata()) == pytest.approx(0.5, rel=0.1)  # 1 / (2 scale)
    figure_weights([one._replace(weights=np.append(np.zeros(4999), 1.0))])  # no empty range


@pytest.mark.parametrize("width", [2, 6])
def test_features_keep_angles_and_mark_the_origin(width):
    one = network(width=width)
    (axes,) = figure_features([one]).axes
    assert axes.get_aspect() == 1
    (origin,) = axes.lines
    assert (origin.get_xdata(), origin.get_ydata()) == ([0], [0])
    (points,) = [c for c in axes.collections if isinstance(c, PathCollection)]
    drawn = np.asarray(points.get_offsets())
    assert len(drawn) == 200
    if width == 2:
        colours = np.array([to_hex(c) for c in to_rgba_array(points.get_facecolor())])
        for label, colour in enumerate(COLOURS):
            mine = np.asarray(one.features)[np.asarray(one.labels) == label]
            np.testing.assert_array_equal(
                np.sort(drawn[colours == colour], axis=0), np.sort(mine, axis=0)
            )


def test_more_than_ten_classes_draw_ten():
    labels = np.arange(200) % 20
    one = network()._replace(labels=labels, train_labels=labels)
    (axes,) = figure_features([one]).axes
    (points,) = [c for c in axes.collections if isinstance(c, PathCollection)]
    assert len(np.asarray(points.get_offsets())) == 100


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("number", [1, 2, 4, 5])
def test_no_text_collides_or_is_cut_off(figure, number):
    drawn = figure([network(f"ResNet-{i} $\\no math$", width=6) for i in range(number)])
    FigureCanvasAgg(drawn)
    drawn.draw_without_rendering()
    boxes = [axes._left_title.get_window_extent() for axes in drawn.axes]
    boxes += [axes.xaxis.label.get_window_extent() for axes in drawn.axes]
    boxes += [axes.yaxis.label.get_window_extent() for axes in drawn.axes]
    boxes += [legend.get_window_extent() for legend in drawn.legends]
    page = drawn.bbox
    boxes = [box for box in boxes if box.width > 0]
    for i, box in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1, box
        assert page.y0 <= box.y0 and box.y1 <= page.y1, box
        assert not any(box.overlaps(other) for other in boxes[:i]), box


def test_input_errors():
    for figure in FIGURES:
        with pytest.raises(InputError, match="0 networks"):
            figure([])
    for figure in (figure_curves, figure_features):
        with pytest.raises(InputError, match="expected 1 to 10"):
            figure([network()] * 11)
    broken = network("CNN")
    del broken.history["test_loss"]
    with pytest.raises(InputError, match=r"history of CNN has lengths .*'test_loss': 0"):
        figure_curves([broken])
