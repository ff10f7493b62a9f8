"""A network as a picture: layers as boxes, arrows where the data flow, dashed ones for feedback.

What is connected is read from the traced program (`nnlab.costs.connections`) and what a layer costs
from the same (`nnlab.costs.summary`), so that a model of one's own is drawn like any other. The
picture is SVG that needs no other file; it follows the light or dark mode of where it is seen, and
says the exact numbers of a box when one points at it.
"""

import html
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn

from nnlab.costs.connections import connected
from nnlab.costs.modules import traced_calls
from nnlab.costs.network_graph import Edge, Graph
from nnlab.costs.summary import summarize
from nnlab.figures.layered import Layout, layered
from nnlab.figures.network_boxes import (
    KINDS,
    WIDTH,
    Box,
    description,
    facts,
    parameters_text,
    shape_text,
    with_boxes,
)

_MANY = 60  # boxes of a picture that shows every layer if it is not asked to
_LETTER = 6.5  # width of a letter beside an arrow, at most
_MARGIN = 16.0
_GAP = 32.0
_SIGNS = {"*": "\N{MULTIPLICATION SIGN}", "-": "\N{MINUS SIGN}", "concatenate": "concat"}


_Size = tuple[float, float]
_Way = Sequence[tuple[float, float, float]]


class _Label(NamedTuple):
    """Words of a connection: beside its head, or on its line after its start or where it passes."""

    text: str
    place: str  # "head", "start" or "lane"


def draw_network(
    model: nn.Module, variables: Any, inputs: Any, *, levels: int | None = None, title: str = ""
) -> str:
    """Draw a model as SVG; nothing is run.

    Args:
        model: called as `model.apply(variables, inputs)` for inference.
        variables: its parameters and statistics, arrays or `jax.ShapeDtypeStruct`s.
        inputs: a batch, such as [batch, height, width, channels], the same.
        levels: show modules of this depth as one box each; by default every layer, and of a network
            of more than 60 boxes as deep as they fit. Boxes in a chain that are alike are one.
        title: what screen readers say; by default the class of the model.

    Raises:
        InputError: `levels` is below one.
    """
    summary = summarize(model, variables, inputs)
    calls, program = traced_calls(model, variables, inputs)
    deepest = max(1, *(len(call.path) for call in calls))
    for depth in range(deepest, 0, -1) if levels is None else [levels]:
        graph, boxes = with_boxes(connected(calls, program, inputs, depth), summary.lines)
        if len(boxes) <= _MANY:
            break
    shown = Counter(dict(summary.total.parameters))
    for box in boxes:
        for bits, number in box.line.parameters.items():
            shown[bits] -= number * (1 + len(box.repeats))
    note = parameters_text({bits: number for bits, number in shown.items() if number})
    note = f"{note} in modules around these" if note else ""
    return _svg(graph, boxes, title or type(model).__name__, note)


def _svg(graph: Graph, boxes: Sequence[Box], title: str, note: str) -> str:
    sizes = [_size(box) for box in boxes]
    forward = [edge for edge in graph.edges if not edge.feedback]
    labels = _labels(forward)
    lanes = [
        _LETTER * len(label.text) if label is not None and label.place == "lane" else None
        for label in labels
    ]
    place = layered(sizes, [edge[:2] for edge in forward], (18, _GAP), lanes)
    back = sorted(
        (edge for edge in graph.edges if edge.feedback), key=lambda edge: edge.source == edge.target
    )
    lanes = _lanes(back, place.rows)
    width = place.width + 2 * _MARGIN + (14 * (1 + max(lanes)) + 10 if back else 0)
    height = place.height + 2 * _MARGIN + (12 if back else 0) + (24 if note else 0)
    width = max(width, 2 * _MARGIN + _LETTER * len(note))
    arrows = [
        _arrow(edge, way, place, sizes, label)
        for edge, way, label in zip(forward, place.ways, labels, strict=True)
    ]
    left = min([0.0, *(start for _, start, _ in arrows)]) - _MARGIN
    width = max([width - _MARGIN, *(end + _MARGIN for _, _, end in arrows)]) - left
    parts = [
        *(arrow for arrow, _, _ in arrows),
        *(
            _feedback(edge, lane, place, sizes, boxes)
            for edge, lane in zip(back, lanes, strict=True)
        ),
        *map(_drawing, boxes, place.centres, sizes),
    ]
    if note:
        parts.append(
            f'<text class="word" x="0" y="{height - 2 * _MARGIN:.1f}" '
            f'style="text-anchor: start">{note}</text>'
        )
    name = html.escape(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="network" role="img" aria-label="{name}"'
        f' viewBox="{left:.0f} {-_MARGIN} {width:.0f} {height:.0f}" width="{width:.0f}"'
        f' height="{height:.0f}" style="max-width: 100%; height: auto">\n'
        f"<title>{name}</title>\n<style>{_STYLE}</style>\n{_MARKERS}\n"
        f'<rect class="paper" x="{left:.0f}" y="{-_MARGIN}" width="100%" height="100%"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _size(box: Box) -> _Size:
    match box.node.kind:
        case "layer":
            return 204.0, 11.0 + 14.5 * len(facts(box))
        case "junction":
            return max(26.0, 14 + 7.5 * len(_sign(box.node.name))), 26.0
        case _:
            return max(100.0, 16 + 6.5 * len(box.node.name)), 38.0


def _sign(name: str) -> str:
    signs = [_SIGNS.get(sign, sign) for sign in name.split()]
    return " ".join(signs if len(signs) < 4 else [*signs[:3], "…"])


def _labels(edges: Sequence[Edge]) -> list[_Label | None]:
    """The words of each connection, and where no other connection's can be meant."""
    starts = Counter(edge.source for edge in edges)
    heads = Counter(edge.target for edge in edges)
    pairs = Counter(edge[:2] for edge in edges)
    found: list[_Label | None] = []
    for edge in edges:
        text = ", ".join(edge.words)
        if heads[edge.target] == 1 and text:
            found.append(_Label(text, "head"))
        elif starts[edge.source] == 1 and text:
            found.append(_Label(text, "start"))
        else:
            found.append(_Label(text, "lane") if text or pairs[edge[:2]] > 1 else None)
    return found


def _arrow(
    edge: Edge, way: _Way, place: Layout, sizes: Sequence[_Size], label: _Label | None
) -> tuple[str, float, float]:
    """An arrow, and the leftmost and the rightmost x of its words."""
    (x, top), (end, below) = place.centres[edge.source], place.centres[edge.target]
    start, y = x, top + sizes[edge.source][1]
    path = f"M{x:.1f} {y:.1f}"
    for x_, y_, low in [*way, (end, below, None)]:
        middle = (y + y_) / 2
        path += f"C{x:.1f} {middle:.1f} {x_:.1f} {middle:.1f} {x_:.1f} {y_ - 1:.1f}"
        if low is not None:
            path += f"L{x_:.1f} {low:.1f}"
            x, y = x_, low
    drawn = f'<path class="flow" d="{path}" marker-end="url(#network-end)"/>'
    if label is None or not label.text:
        return f"<g>{drawn}</g>", start, start
    wide = _LETTER * len(label.text)
    match label.place:
        case "head" if x <= end:
            x, y, anchor, left = end + 8, below - 11, "start", end + 8
        case "head":
            x, y, anchor, left = end - 8, below - 11, "end", end - 8 - wide
        case "start":
            x, y, anchor, left = start, top + sizes[edge.source][1] + 14, "middle", start - wide / 2
        case _:
            (x, high, low), anchor = way[0], "middle"
            y, left = (high + low) / 2 + 4, x - wide / 2
    text = html.escape(label.text)
    drawn += (
        f'<text class="word" x="{x:.1f}" y="{y:.1f}" style="text-anchor: {anchor}">{text}</text>'
    )
    return f"<g><title>{text}</title>{drawn}</g>", left, left + wide


def _lanes(edges: Sequence[Edge], rows: Sequence[int]) -> list[int]:
    """A lane at the right for each feedback, so that none lies on another."""
    taken: list[list[tuple[int, int]]] = []
    lanes = []
    for edge in edges:
        high, low = sorted((rows[edge.target], rows[edge.source]))
        free = [all(low < a or b < high for a, b in spans) for spans in taken]
        lanes.append([*free, True].index(True))
        taken += [[]] * (lanes[-1] == len(taken))
        taken[lanes[-1]].append((high, low))
    return lanes


def _feedback(
    edge: Edge, lane: int, place: Layout, sizes: Sequence[_Size], boxes: Sequence[Box]
) -> str:
    (x, top), (end, y) = place.centres[edge.source], place.centres[edge.target]
    right = place.width + 12 + 14 * lane
    if edge.source == edge.target:
        right = x + sizes[edge.source][0] / 2 + 9
    low, high, r = top + sizes[edge.source][1], y, 5
    shift = 9 + (4 * (lane % 3) if edge.source != edge.target else -1)
    start = x + min(12, sizes[edge.source][0] / 4)
    end += min(24, sizes[edge.target][0] / 4)
    path = (
        f"M{start:.1f} {low:.1f}V{low + shift - r:.1f}q0 {r} {r} {r}H{right - r:.1f}"
        f"q{r} 0 {r} {-r}V{high - shift + r:.1f}q0 {-r} {-r} {-r}H{end + r:.1f}"
        f"q{-r} 0 {-r} {r}V{high - 1:.1f}"
    )
    a, b = boxes[edge.source].node.name, boxes[edge.target].node.name
    said = html.escape(f"{a} of one step goes to {b} of the next")
    return (
        f'<g><title>{said}</title><path class="back" d="{path}" '
        'marker-end="url(#network-back)"/></g>'
    )


def _drawing(box: Box, centre: tuple[float, float], size: tuple[float, float]) -> str:
    (x, y), (width, height) = centre, size
    kind = box.node.kind
    colour = box.inside[0] if len(box.inside) == 1 else ""
    colour = colour if colour in KINDS.values() else "mixed" if box.inside else "plain"
    radius = 5 if kind == "layer" else height / 2
    if kind == "layer":
        texts = [
            _text(x, y + 17 + 14.5 * number, text, "name" if number == 0 else "fact")
            for number, text in enumerate(facts(box))
        ]
    elif kind != "junction":
        texts = [_text(x, y + 16, box.node.name, "name"), _text(x, y + 31, shape_text(box), "fact")]
    else:
        texts = [_text(x, y + 18, _sign(box.node.name), "sign")]
    return (
        f'<g class="{kind} {colour}"><title>{html.escape(description(box))}</title>'
        f'<rect x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        f' rx="{radius:g}"/>{"".join(texts)}</g>'
    )


def _text(x: float, y: float, text: str, kind: str) -> str:
    text = text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'


_MARKERS = (
    "<defs>"
    + "".join(
        f'<marker id="network-{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
        f' markerHeight="7" orient="auto"><path class="{kind}" d="M0 0.5L8 4L0 7.5z"/></marker>'
        for name, kind in (("end", "tip"), ("back", "tip backtip"))
    )
    + "</defs>"
)

_STYLE = """
.network { --paper: #ffffff; --ink: #24292f; --quiet: #59636e; --line: #6e7781; --box: #f6f8fa;
  --float: #0b6bcb; --adder: #c2410c; --binary: #1a7f37; --ternary: #8250df; --back: #bf3989;
  font-family: system-ui, sans-serif; font-size: 12px; }
@media (prefers-color-scheme: dark) { .network { --paper: #16191d; --ink: #dfe3e8;
  --quiet: #a6b0bb; --line: #8b949e; --box: #21262d; --float: #58a6ff; --adder: #f0883e;
  --binary: #56d364; --ternary: #bc8cff; --back: #f778ba; } }
.network .paper { fill: var(--paper); }
.network text { fill: var(--ink); text-anchor: middle; }
.network .name { font-weight: 600; }
.network .fact { fill: var(--quiet); font-size: 11px; }
.network .sign { font-weight: 600; }
.network .word { fill: var(--quiet); font-size: 11px; font-style: italic; stroke: var(--paper);
  stroke-width: 4px; paint-order: stroke; }
.network g > rect { fill: var(--box); stroke: var(--line); stroke-width: 1.2; }
.network .float > rect { stroke: var(--float); stroke-width: 2; }
.network .adder > rect { stroke: var(--adder); stroke-width: 2; }
.network .binary > rect { stroke: var(--binary); stroke-width: 2; }
.network .ternary > rect { stroke: var(--ternary); stroke-width: 2; }
.network .mixed > rect { stroke: var(--ink); stroke-width: 2; }
.network .input > rect, .network .output > rect { fill: none; }
.network .flow { fill: none; stroke: var(--line); stroke-width: 1.3; }
.network .back { fill: none; stroke: var(--back); stroke-width: 1.5; stroke-dasharray: 5 3; }
.network .tip { fill: var(--line); }
.network .backtip { fill: var(--back); }
"""
