"""Where the boxes of a drawing go whose connections run from top to bottom.

Boxes stand in rows: each below all that it is connected from (Sugiyama, Tagawa & Toda, Methods for
visual understanding of hierarchical system structures, 1981). A connection that passes rows has a
place of its own in each of them. Rows are ordered by the mean place of their neighbours, which
keeps crossings few, and boxes stand below the mean of these as far as their order and their widths
allow, which is an isotonic regression.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_SWEEPS = 24
_LANE = 14.0  # width of a connection that passes a row, and height of a row without boxes


class Layout(NamedTuple):
    """Places of boxes and ways of connections.

    Attributes:
        centres: x of the middle and y of the top of each box.
        ways: for each connection, x of its place in each row that it passes, and y of the top and
            the bottom of the row.
        rows: row of each box.
        width, height: of the drawing.
    """

    centres: list[tuple[float, float]]
    ways: list[list[tuple[float, float, float]]]
    rows: list[int]
    width: float
    height: float


def layered(
    sizes: Sequence[tuple[float, float]],
    edges: Sequence[tuple[int, int]],
    gaps: tuple[float, float] = (18, 34),
    lanes: Sequence[float | None] = (),
) -> Layout:
    """Place boxes in rows.

    Args:
        sizes: width and height of each box, one or more.
        edges: pairs of boxes; they form no circle.
        gaps: space between boxes of a row, and between rows.
        lanes: width of each connection where it passes a row; one with a width passes one or more.
    """
    lanes = lanes or [None] * len(edges)
    rows = _rows(len(sizes), edges, [1 if lane is None else 2 for lane in lanes])
    widths = [width for width, _ in sizes]
    members: list[list[int]] = [[] for _ in range(1 + max(rows))]
    for box, row in enumerate(rows):
        members[row].append(box)
    links: list[tuple[int, int]] = []
    passed: list[list[int]] = []
    for (source, target), lane in zip(edges, lanes, strict=True):
        chain = [source]
        for row in range(rows[source] + 1, rows[target]):
            members[row].append(len(widths))
            chain.append(len(widths))
            widths.append(_LANE if lane is None else lane)
        links += zip(chain, [*chain[1:], target], strict=True)
        passed.append(chain[1:])
    above: list[list[int]] = [[] for _ in widths]
    below: list[list[int]] = [[] for _ in widths]
    for a, b in links:
        above[b].append(a)
        below[a].append(b)
    x = _places(members, widths, (above, below), gaps[0])
    heights = [
        max([_LANE, *(h for box in row if box < len(sizes) for h in sizes[box][1:])])
        for row in members
    ]
    tops = np.cumsum([0, *(height + gaps[1] for height in heights)])
    left = min(x[i] - widths[i] / 2 for i in range(len(widths)))
    right = max(x[i] + widths[i] / 2 for i in range(len(widths)))
    row_of = {place: number for number, row in enumerate(members) for place in row}
    return Layout(
        [
            (x[box] - left, tops[rows[box]] + (heights[rows[box]] - sizes[box][1]) / 2)
            for box in range(len(sizes))
        ],
        [
            [(x[i] - left, tops[row_of[i]], tops[row_of[i]] + heights[row_of[i]]) for i in chain]
            for chain in passed
        ],
        rows,
        float(right - left),
        float(tops[-1] - gaps[1]),
    )


def _rows(boxes: int, edges: Sequence[tuple[int, int]], steps: Sequence[int]) -> list[int]:
    """The row of each box: below all before it; beside the longest way right above the next."""
    rows, first = [0] * boxes, list(range(boxes))
    for _ in range(boxes):
        moved = False
        for (source, target), step in zip(edges, steps, strict=True):
            if rows[target] < rows[source] + step:
                rows[target], first[target], moved = rows[source] + step, first[source], True
        if not moved:
            break
    on_way = {first[rows.index(max(rows))]}
    for _ in range(boxes):
        on_way |= {target for source, target in edges if source in on_way}
    for box in sorted(set(range(boxes)) - on_way, key=lambda box: -rows[box]):
        ways = zip(edges, steps, strict=True)
        after = [rows[target] - step for (source, target), step in ways if source == box]
        rows[box] = max(0, min(after, default=rows[box]))
    return rows


def _places(
    members: list[list[int]],
    widths: Sequence[float],
    neighbours: tuple[list[list[int]], list[list[int]]],
    gap: float,
) -> np.ndarray:
    """Order the members of each row, and return the x of all."""
    x = np.zeros(len(widths))
    firm = np.ones(len(widths))  # boxes beside the way make room for those on it
    for row in members[1:]:
        for box in row:
            if all(firm[other] < 1 for other in neighbours[0][box]):
                firm[box] = 0.001

    def aim(i: int, others: list[int]) -> float:
        return float(np.average(x[others], weights=firm[others])) if others else float(x[i])

    for row in members:
        x[row] = _apart(np.zeros(len(row)), [widths[i] for i in row], firm[row], gap)
    for sweep in range(_SWEEPS):
        way = neighbours[sweep % 2]
        for row in members if sweep % 2 == 0 else members[::-1]:
            wanted = {i: aim(i, way[i]) for i in row}
            if sweep < _SWEEPS // 2:
                row.sort(key=lambda i: wanted[i])
            aims = np.array([wanted[i] for i in row])
            x[row] = _apart(aims, [widths[i] for i in row], firm[row], gap)
    return x


def _apart(
    aims: np.ndarray, widths: Sequence[float], weights: np.ndarray, gap: float
) -> np.ndarray:
    """The places in this order, `gap` apart, whose squared distances from the aims are least."""
    halves = np.asarray(widths) / 2
    steps = np.concatenate([[0], np.cumsum(halves[:-1] + halves[1:] + gap)])
    blocks: list[tuple[float, float, int]] = []  # mean, weight and number of places that touch
    for aim, weight in zip((aims - steps).tolist(), weights.tolist(), strict=True):
        blocks.append((aim, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, u, n), (b, v, m) = blocks[-2:]
            blocks[-2:] = [((a * u + b * v) / (u + v), u + v, n + m)]
    return np.concatenate([np.full(number, mean) for mean, _, number in blocks]) + steps
