"""Heat maps: what is drawn where, and what is refused."""

from typing import Any

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.figures.heatmaps import HeatMap, figure_heatmaps


def test_maps_stand_one_above_the_other(tmp_path):
    weights = np.random.default_rng(0).uniform(size=(7, 30))
    figure = figure_heatmaps(
        [HeatMap("input", "bit", np.eye(7)[:, :3]), HeatMap("reads", "location", weights, (0, 2))],
        "step",
    )
    axes: Any = figure.axes
    assert [a.get_title("left") for a in axes] == ["input", "reads"]
    assert [a.get_ylabel() for a in axes] == ["bit", "location"]
    assert [a.get_xlabel() for a in axes] == ["", "step"]
    np.testing.assert_array_equal(axes[0].images[0].get_array(), np.eye(7)[:, :3].T)
    np.testing.assert_array_equal(axes[1].images[0].get_array(), weights.T)
    assert axes[0].images[0].get_clim() == (0, 1) and axes[1].images[0].get_clim() == (0, 2)
    assert axes[0].images[0].origin == "upper"
    figure.savefig(tmp_path / "maps.png")
    tops = [a.get_position().y1 for a in axes]
    assert tops[0] > tops[1]


@pytest.mark.parametrize("shapes", [[], [(3,)], [(3, 2), (4, 2)], [(0, 2)]])
def test_errors(shapes):
    maps = [HeatMap("", "", np.zeros(shape)) for shape in shapes]
    with pytest.raises(InputError, match=r"were given to draw; expected one or more of \[time"):
        figure_heatmaps(maps)
