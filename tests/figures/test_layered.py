"""Places of boxes: what a reader of a drawing takes for granted."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from nnlab.figures.layered import _apart, layered


@given(st.integers(1, 9), st.data())
@settings(max_examples=25, deadline=None)
def test_boxes_do_not_overlap_and_all_ways_lead_down(boxes, data):
    pairs = list(itertools.combinations(range(boxes), 2))
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    sizes = [(20.0 + 10 * (box % 3), 10.0 + 5 * (box % 2)) for box in range(boxes)]
    found = layered(sizes, edges, (4, 8))
    for (a, b), way in zip(edges, found.ways, strict=True):
        assert found.rows[a] < found.rows[b] and len(way) == found.rows[b] - found.rows[a] - 1
        heights = [found.centres[a][1] + sizes[a][1], *(top for _, top, _ in way)]
        heights.append(found.centres[b][1])
        assert heights == sorted(heights)
    places = zip(found.centres, sizes, strict=True)
    spans = [(x - w / 2, x + w / 2, y, y + h) for (x, y), (w, h) in places]
    for (a, b, c, d), (e, f, g, h) in itertools.combinations(spans, 2):
        assert b + 3.9 < e or f + 3.9 < a or d + 3.9 < g or h + 3.9 < c
    assert min(a for a, *_ in spans) >= -1e-9
    assert max(b for _, b, *_ in spans) <= found.width + 1e-9
    assert max(d for *_, d in spans) <= found.height + 1e-9


def test_places_are_the_nearest_that_are_far_enough_apart():
    aims, widths = np.array([3.0, 0.0, 1.0, 30.0]), np.array([2.0, 4.0, 2.0, 6.0])
    weights = np.array([1.0, 2.0, 0.5, 1.0])
    steps = (widths[:-1] + widths[1:]) / 2 + 1
    best = minimize(
        lambda x: (weights * (x - aims) ** 2).sum(),
        np.cumsum([0, *steps]),
        constraints={"type": "ineq", "fun": lambda x: np.diff(x) - steps},
    )
    np.testing.assert_allclose(_apart(aims, widths.tolist(), weights, 1.0), best.x, atol=1e-4)


def test_a_chain_is_a_straight_line_beside_its_shortcut():
    found = layered([(30.0, 10.0)] * 4, [(0, 1), (1, 2), (2, 3), (0, 3)])
    assert found.rows == [0, 1, 2, 3]
    assert found.centres[1][0] == found.centres[2][0] != found.ways[3][0][0]


def test_a_way_beside_the_longest_leads_down_too():
    assert layered([(20, 10)] * 5, [(0, 1), (2, 3)]).rows == [0, 1, 0, 1, 0]


def test_connections_with_a_width_pass_a_row_of_their_own():
    two = [(0, 1), (0, 1), (1, 2)]
    found = layered([(20.0, 10.0)] * 3, two, (4, 8), [30, 60, None])
    assert found.rows == [0, 2, 3]
    (one,), (other,), none = found.ways
    assert not none and abs(other[0] - one[0]) == 4 + (30 + 60) / 2 and one[1:] == other[1:]
    assert found.width == 30 + 4 + 60
