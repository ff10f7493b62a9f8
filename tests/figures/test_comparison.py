"""Means and deviations by epoch."""

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.figures.comparison import Group, figure_comparison, mean_and_deviation


def test_mean_and_deviation_of_the_curves_that_reach_an_epoch():
    mean, deviation = mean_and_deviation([[1, 4, 5], [3, 8]])
    np.testing.assert_allclose(mean, [2, 6, 5])
    np.testing.assert_allclose(deviation, [2**0.5, 8**0.5, np.nan])


def test_the_band_lies_around_the_mean():
    runs = [{"test_accuracy": [0.1, 0.5], "test_loss": [2.0, 1.0]}] * 2
    runs = [*runs, {"test_accuracy": [0.4, 0.8], "test_loss": [2.0, 4.0]}]
    figure = figure_comparison(
        [Group("CNN", runs), Group("BNN", runs[:1])], ["test_accuracy", "test_loss"]
    )
    accuracy, loss = figure.axes
    np.testing.assert_allclose(np.asarray(accuracy.lines[0].get_ydata()), [20, 60])
    band = np.asarray(accuracy.collections[0].get_paths()[0].vertices)
    np.testing.assert_allclose(band[:, 1].min(), 20 - 300**0.5)
    assert loss.get_yscale() == "log" and np.isfinite(loss.get_ylim()).all()
    with pytest.raises(InputError, match="BNN has no test_loss"):
        figure_comparison([Group("BNN", [{"test_accuracy": [0.1]}])], ["test_loss"])
    with pytest.raises(InputError, match="11 groups"):
        figure_comparison([Group("CNN", runs)] * 11, ["test_loss"])
