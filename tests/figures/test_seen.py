"""Pictures of what layers see."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.figures.seen import _correlation, _mosaic, figure_seen, see

KEY = jax.random.key(0)


@pytest.mark.slow
def test_a_layer_seen_and_drawn(tmp_path):
    model = nn.Conv(7, (3, 3), padding="VALID")
    net = nn.Sequential([model, nn.relu, lambda x: x.reshape(len(x), -1), nn.Dense(2)])
    images = jax.random.uniform(KEY, (12, 6, 5, 1))
    variables = net.init(KEY, images)
    seen = see(KEY, "a layer", net, variables, "layers_0", images, np.arange(12) % 3)
    assert seen.filters is not None and seen.filters.shape == (7, 3, 3, 1)
    assert seen.maps.shape == (7, 4, 3) and seen.maximisers.shape == (7, 3, 3, 1)
    assert seen.patches.shape == (7, 9, 3, 3, 1) and not np.isnan(seen.patches).any()
    assert (seen.figures["receptive field"], seen.figures["units"]) == ("3x3", 7)
    assert (
        seen.figures["response to the maximiser"]
        > (seen.figures["response to the strongest patch"])
    )
    assert 1 <= seen.figures["classes among nine patches"] <= 3
    figure_seen([seen] * 3).savefig(tmp_path / "seen.png")
    assert (tmp_path / "seen.png").stat().st_size > 1000


def test_mosaics_and_correlations():
    tiles = [np.full((2, 2, 1), 3.0), np.array([[[1.0], [2.0]], [[np.nan], [3.0]]])]
    picture = _mosaic(tiles, 2, 1)[..., 0]
    np.testing.assert_array_equal(picture, [[0, 0, np.nan, 0, 0.5], [0, 0, *[np.nan] * 2, 1]])
    one = np.random.default_rng(0).normal(size=(3, 3, 1))
    many = np.stack([2 * one + 1, np.where(one > 1, np.nan, 2 * one + 1)])
    assert _correlation(one, many[:1]) == pytest.approx(1)
    assert _correlation(-one, many[:1]) == pytest.approx(-1)
    assert _correlation(one, np.ones((2, 3, 3, 1))) == 0


def test_nothing_to_draw():
    with pytest.raises(InputError, match="0 layers"):
        figure_seen([])
