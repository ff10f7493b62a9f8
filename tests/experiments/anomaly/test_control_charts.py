"""Control charts against their equations."""

import jax
import numpy as np
import pytest
from control_charts import control_charts

from nnlab.errors import InputError


def test_charts_follow_their_equations():
    values, classes = control_charts(jax.random.key(0), 40)
    normal, cyclic, up, down, higher, lower = values.reshape(6, 40, 60)
    assert np.abs(normal - 30).max() <= 6
    assert 16 > np.abs(cyclic - 30).max(axis=1).min() > 9
    ends = [(x[:, -5:].mean(axis=1) - x[:, :5].mean(axis=1)) for x in (up, down, higher, lower)]
    # a slope of 0.2 to 0.5 over 55 steps or a step of 7.5 to 20, and noise of at most 6 each side
    assert ends[0].min() > 11 - 12 and ends[0].mean() == pytest.approx(0.35 * 55, abs=3)
    np.testing.assert_allclose(ends[1].mean(), -ends[0].mean(), atol=3)
    assert ends[2].mean() == pytest.approx(13.75, abs=3) and ends[3].max() < 0
    assert np.bincount(classes).tolist() == [40] * 6 and (np.diff(classes) >= 0).all()


def test_no_charts_are_refused():
    with pytest.raises(InputError, match="each must be at least 1, not 0"):
        control_charts(jax.random.key(0), 0)
