"""A network as nodes and connections, and junctions that are one.

`nnlab.costs.connections` reads such graphs from programs.
"""

from typing import Any, NamedTuple

from nnlab.costs.modules import Call

_ASSOCIATIVE = {"+", "*", "concatenate", "maximum", "minimum"}


class Node(NamedTuple):
    """A place where data come from or go to.

    Attributes:
        kind: "input", "layer", "junction" or "output".
        name: path of a layer, joined by "/"; sign of a junction, such as "+"; of one
            in a loop all of them, such as "* +".
        shape: of an array that comes out, for an output that goes in; () if it is not one array.
        call: number of a layer's call in `Graph.calls`, else None.
    """

    kind: str
    name: str
    shape: tuple[int, ...]
    call: int | None = None


class Edge(NamedTuple):
    """A connection.

    Attributes:
        source, target: numbers of nodes.
        feedback: whether the target takes it in the next step of a loop.
        words: all that runs on the way, such as "ReLU", as far as it has a name.
    """

    source: int
    target: int
    feedback: bool = False
    words: tuple[str, ...] = ()


class Graph(NamedTuple):
    """A network as nodes and connections.

    Attributes:
        nodes: in the order in which the program comes to them.
        edges: without `feedback` ones they form no circle. Two of the same ends differ in words.
        calls: the calls of `nnlab.costs.modules.module_calls`.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    calls: tuple[Call, ...]

    def names(self) -> set[tuple[str, str]]:
        """Return the connections as pairs of names, for short comparisons."""
        return {(self.nodes[e.source].name, self.nodes[e.target].name) for e in self.edges}


def merged(graph: Graph, looped: set[int]) -> Graph:
    """Make one junction of those that follow each other with no other way between them.

    Outside of loops only those of the same sign are one, where nothing is in between and nothing
    else is computed from the first.
    """
    into = list(range(len(graph.nodes)))
    edges = set(graph.edges)
    names = [node.name.split() for node in graph.nodes]
    shapes = [node.shape for node in graph.nodes]
    changed = True
    while changed:
        changed = False
        follow: dict[int, set[int]] = {}
        for edge in edges:
            if not edge.feedback:
                follow.setdefault(edge.source, set()).add(edge.target)
        for edge in sorted(edges):
            a, b = edge.source, edge.target
            kinds = {graph.nodes[a].kind, graph.nodes[b].kind}
            others = follow.get(a, set()) - {b}
            if edge.feedback or kinds != {"junction"} or b in _reached(follow, others):
                continue
            same = names[a] == names[b] and names[a][0] in _ASSOCIATIVE
            apart = others or edge.words or not same or {a, b} & looped
            if apart and not {a, b} <= looped:
                continue
            into = [a if place == b else place for place in into]
            names[a] = list(dict.fromkeys([*names[a], *names[b]]))
            shapes[a] = shapes[b]
            edges = {e._replace(source=into[e.source], target=into[e.target]) for e in edges}
            edges = {e for e in edges if e.feedback or e.source != e.target}
            changed = True
            break
    kept = [place for place, other in enumerate(into) if place == other]
    number = {place: new for new, place in enumerate(kept)}
    nodes = []
    for place in kept:
        node = graph.nodes[place]
        if node.kind == "junction":
            node = node._replace(name=" ".join(names[place]), shape=shapes[place])
        nodes.append(node)
    gates = {place for place in looped if graph.nodes[place].kind == "junction"}
    ends: dict[tuple[Any, ...], Edge] = {}
    for edge in sorted(edges):
        ways = () if edge.target in gates else edge.words
        place = edge._replace(source=number[edge.source], target=number[edge.target])
        ends.setdefault((*place[:3], ways), place)
    return graph._replace(nodes=tuple(nodes), edges=tuple(sorted(ends.values())))


def _reached(follow: dict[int, set[int]], places: set[int]) -> set[int]:
    """The nodes to which a way leads from these, and these themselves."""
    found, rest = set(), set(places)
    while rest:
        place = rest.pop()
        found.add(place)
        rest |= follow.get(place, set()) - found
    return found
