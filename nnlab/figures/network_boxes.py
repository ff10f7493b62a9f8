"""Boxes of a picture of a network: one for each layer, or for a chain of layers that are alike."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nnlab.costs.network_graph import Edge, Graph, Node
from nnlab.costs.summary import Line, add
from nnlab.costs.summary_text import short

KINDS = {"product": "float", "adder": "adder", "signed": "ternary", "binary": "binary"}
WIDTH = 34  # letters of a line in a box
_CHARACTERS = 28  # of the name in it


class Box(NamedTuple):
    """A box of a picture, and what it says."""

    node: Node
    line: Line
    inside: tuple[str, ...]  # arithmetics of a box of several layers
    steps: int = 1  # of the loop that it is in
    repeats: tuple[str, ...] = ()  # names of boxes that are like it, in a chain
    between: tuple[str, ...] = ()  # words between these


def with_boxes(graph: Graph, lines: Sequence[Line]) -> tuple[Graph, list[Box]]:
    """Return the graph with chains of like boxes made one, and a box for each node of it."""
    boxes = [_box(node, graph, lines) for node in graph.nodes]
    before: dict[int, list[Edge]] = {}
    after: dict[int, list[Edge]] = {}
    for edge in graph.edges:
        before.setdefault(edge.target, []).append(edge)
        after.setdefault(edge.source, []).append(edge)
    first = list(range(len(boxes)))
    for place, box in enumerate(boxes):
        ways = before.get(place, [])
        if len(ways) == 1 and not ways[0].feedback and len(after[ways[0].source]) == 1:
            other = boxes[first[ways[0].source]]
            between = ways[0].words
            same = _look(box) == _look(other) and (not other.repeats or other.between == between)
            if box.node.kind == "layer" and same:
                first[place] = first[ways[0].source]
                name = box.line.path[-1] if box.line.path else box.node.name
                repeats = (*other.repeats, name)
                boxes[first[place]] = other._replace(repeats=repeats, between=between)
    kept = [place for place, other in enumerate(first) if place == other]
    number = {place: new for new, place in enumerate(kept)}
    edges = tuple(
        edge._replace(source=number[first[edge.source]], target=number[first[edge.target]])
        for edge in graph.edges
        if edge.feedback or first[edge.source] != first[edge.target]
    )
    nodes = tuple(graph.nodes[place] for place in kept)
    return graph._replace(nodes=nodes, edges=edges), [boxes[place] for place in kept]


def _look(box: Box) -> tuple[Any, ...]:
    line = box.line
    return (
        *(line.op, line.shape, line.parameters, line.operations, box.inside, box.steps),
        box.node.kind,
    )


def _box(node: Node, graph: Graph, lines: Sequence[Line]) -> Box:
    if node.call is None:
        return Box(node, Line((), node.name, node.shape), ())
    call, inner = graph.calls[node.call], []
    for line in lines[node.call + 1 : len(graph.calls)]:
        if call.is_layer or line.path[: len(call.path)] != call.path or line.path == call.path:
            break
        inner.append(line)
    kinds = [_arithmetic(graph, node.call + n, line) for n, line in enumerate(inner, 1)]
    kinds.append(_arithmetic(graph, node.call, lines[node.call]))
    inside = tuple(dict.fromkeys(filter(None, kinds)))
    return Box(node, add(lines[node.call], inner), inside, call.times)


def _arithmetic(graph: Graph, number: int, line: Line) -> str:
    """One word for how a layer's sums are computed; "" if it has none."""
    module = graph.calls[number].module
    op = getattr(module, "op", None)
    name = getattr(getattr(op, "func", op), "__name__", "").removesuffix("_conv")
    if graph.calls[number].terms and name.isidentifier() and name != "conv":
        return name.strip("_").replace("_", " ")
    return KINDS.get(line.kind or "", "other" if graph.calls[number].terms else "")


def facts(box: Box) -> list[str]:
    """The lines of text in a box."""
    line, name = box.line, box.node.name
    if len(name) > _CHARACTERS:
        name = "…" + name[1 - _CHARACTERS :]
    kind = " · ".join(filter(None, (line.op, ", ".join(box.inside))))
    sizes = list(filter(None, (shape_text(box), parameters_text(line.parameters))))
    joined = " · ".join(sizes)
    lines = [name, kind, *([joined] if len(joined) <= WIDTH else sizes)]
    several = [f"{1 + len(box.repeats)} like this in a chain"] * bool(box.repeats)
    between = [f"{', '.join(box.between)} between"] * bool(box.between)
    steps = [f"{box.steps} steps"] * (box.steps > 1)
    joined = ", ".join([*several, *between, *steps])
    rows = [joined] if len(joined) <= WIDTH else [*several, *between, *steps]
    return [*lines, *rows] if joined else lines


def parameters_text(of_bits: Mapping[int, int]) -> str:
    """Numbers of parameters by their bits, in words."""
    return " + ".join(f"{short(n)} of {bits} bit{'s' * (bits != 1)}" for bits, n in of_bits.items())


def description(box: Box) -> str:
    """What a box says when one points at it."""
    line = box.line
    if box.node.kind != "layer":
        return f"{box.node.kind} {box.node.name} {shape_text(box)}".strip()
    said = [f"{box.node.name}: {line.op}"] + [f"output {shape_text(box)}"] * bool(line.shape)
    said += [f"{n:,} parameters of {bits} bits at rest" for bits, n in line.parameters.items()]
    totals = line.operations.totals()
    kinds = ("multiplications", "additions", "bit_operations")
    said += [f"{totals[kind]:,} {kind.replace('_', ' ')}" for kind in kinds if totals[kind]]
    if box.repeats:
        said.append(f"after it, alike: {', '.join(box.repeats)}")
    return "\n".join(said)


def shape_text(box: Box) -> str:
    """The shape of what comes out of a box."""
    return "x".join(map(str, box.line.shape))
