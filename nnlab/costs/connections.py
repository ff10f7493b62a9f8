"""Which layer of a Flax model takes its inputs from which, read from the traced program.

Each call of a module leaves a name on its inputs and on its output (`nnlab.costs.modules`). Values
are followed from name to name through the program: what a layer's inputs are computed from is what
it is connected to, whatever runs in between; steps that have a name, such as "ReLU", are words of
each connection on whose way they lie. Where values of two layers meet outside of a layer, as at the
end of a shortcut, there is a junction: "+", "*", "concatenate"; so there is where two ways from one
layer meet that differ in their words. Sums of sums are one junction. In a loop, all junctions that
follow each other with no layer in between, such as the gates of a recurrent cell, are one.

In a loop the state that a step takes is the one that the step before has left: a connection from
what computes the state to what reads it is feedback. All other connections form no circle.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax.extend.core import Jaxpr, Literal, jaxprs_in_params

from nnlab.costs.modules import Call, traced_calls
from nnlab.costs.network_graph import Edge, Graph, Node, merged
from nnlab.errors import check_count

_SIGNS = {
    **{"add": "+", "add_any": "+", "sub": "-", "mul": "*", "div": "/"},
    **{"concatenate": "concatenate", "dot_general": "product", "select_n": "choose"},
    **{"max": "maximum", "min": "minimum", "dynamic_update_slice": "write"},
}
_WORDS = {
    **{"relu": "ReLU", "relu6": "ReLU6", "silu": "SiLU", "gelu": "GELU", "elu": "ELU"},
    **{"sigmoid": "sigmoid", "logistic": "sigmoid", "tanh": "tanh", "hard_tanh": "hard tanh"},
    **{"softmax": "softmax", "log_softmax": "log softmax", "leaky_relu": "leaky ReLU"},
    **{"max_pool": "maximum of windows", "reduce_window_max": "maximum of windows"},
    **{"avg_pool": "mean of windows", "reduce_window_sum": "mean of windows"},
    **{"sign": "sign", "average_pool": "mean of windows"},
}


def connections(model: nn.Module, variables: Any, inputs: Any, levels: int | None = None) -> Graph:
    """Trace which layers of a model are connected; nothing is run.

    Args:
        model: called as `model.apply(variables, inputs)` for inference.
        variables: its parameters and statistics, arrays or `jax.ShapeDtypeStruct`s.
        inputs: a batch, such as [batch, height, width, channels], the same.
        levels: how deep to look into modules that are made of modules: one at this depth is a
            single node. By default every layer is a node.

    Returns:
        The graph. A module that is called twice is two nodes. A layer inside a loop is one.

    Raises:
        InputError: `levels` is no integer of at least one.
    """
    return connected(*traced_calls(model, variables, inputs), inputs, levels)


def connected(
    calls: Sequence[Call], program: Jaxpr, inputs: Any, levels: int | None = None
) -> Graph:
    """Return the same for the calls and the program of `nnlab.costs.modules.traced_calls`."""
    if levels is not None:
        check_count("levels", levels)
    tracer = _Tracer(calls, levels)
    leaves = jax.tree_util.tree_leaves_with_path(inputs)
    given: _Values = [None] * (len(program.invars) - len(leaves))
    for path, leaf in leaves:
        name = "input" + jax.tree_util.keystr(path)
        given.append(_From(tracer.node(Node("input", name, leaf.shape))))
    arrays = program.outvars
    for number, (value, variable) in enumerate(
        zip(tracer.run(program, given), arrays, strict=True)
    ):
        if value is not None:
            name = "output" if len(arrays) == 1 else f"output {number}"
            place = tracer.node(Node("output", name, _shape(variable)))
            tracer.connect(value, place)
    return merged(tracer.graph(calls), tracer.looped)


class _From(NamedTuple):
    """Where a value comes from: a node (or minus one minus the number of a state of a loop)."""

    node: int
    inside: bool = False  # the node is a layer that has not returned yet
    words: tuple[str, ...] = ()


_Values = list[_From | None]


class _Tracer:
    def __init__(self, calls: Sequence[Call], levels: int | None):
        depth = levels or max(len(call.path) for call in calls)
        self._layers = {
            call.mark: number
            for number, call in enumerate(calls)
            if (call.is_layer and len(call.path) <= depth)
            or (call.path and len(call.path) == depth)
        }
        self._calls = calls
        self._nodes: list[Node] = []
        self._places: dict[str, int] = {}  # of layers, by mark
        self._edges: dict[tuple[int, int, tuple[str, ...]], None] = {}
        self._states: list[tuple[_From | None, _From | None]] = []  # first and next of each loop
        self._sums: dict[Any, Any] = {}  # variables, with what is summed
        self._exponentials: set[Any] = set()
        self._loops = 0  # around the equation that is followed
        self.looped: set[int] = set()  # nodes inside a loop

    def node(self, node: Node) -> int:
        if self._loops:
            self.looped.add(len(self._nodes))
        self._nodes.append(node)
        return len(self._nodes) - 1

    def connect(self, value: _From, target: int) -> None:
        if value.node != target:
            self._edges[value.node, target, value.words] = None

    def run(self, jaxpr: Jaxpr, given: Sequence[_From | None]) -> _Values:
        """Follow values through a program, from those of its inputs to those of its outputs."""
        known: dict[Any, _From | None] = dict(zip(jaxpr.invars, given, strict=True))

        def of(variable: Any) -> _From | None:
            return None if isinstance(variable, Literal) else known.get(variable)

        for equation in jaxpr.eqns:
            values = [of(variable) for variable in equation.invars]
            found = self._equation(equation, values)
            known.update(zip(equation.outvars, found, strict=True))
        return [of(variable) for variable in jaxpr.outvars]

    def _equation(self, equation: Any, values: _Values) -> _Values:
        kind, inner = equation.primitive.name, list(jaxprs_in_params(equation.params))
        if not equation.outvars:  # all that it computed is unused
            return []
        if kind == "name":
            return [self._name(equation.params["name"], values[0])]
        if kind == "scan":
            return self._loop(
                inner[0], values, equation.params["num_consts"], equation.params["num_carry"]
            )
        if kind == "while":
            test, consts = equation.params["cond_nconsts"], equation.params["body_nconsts"]
            body = equation.params["body_jaxpr"].jaxpr
            return self._loop(body, values[test:], consts, len(values) - test - consts)
        if self._meet(values) or any(map(_has_marks, inner)):
            if kind == "cond":
                branches = [self.run(branch, values[1:]) for branch in inner]
                outputs = zip(zip(*branches, strict=True), equation.outvars, strict=True)
                return [self._joined("choose", each, _shape(v)) for each, v in outputs]
            if inner and len(inner[0].invars) == len(values):
                return self.run(inner[0], values)
        found = self._joined(_SIGNS.get(kind) or kind, values, _shape(equation.outvars[0]))
        word = self._quotient(equation) or _word(equation, inner)
        if found is not None and word and not found.inside and found.words[-1:] != (word,):
            found = found._replace(words=(*found.words, word))
        return [found] * len(equation.outvars)

    def _quotient(self, equation: Any) -> str:
        """The name of a sum by a number, or of exponentials by their sum."""
        kind, variables = equation.primitive.name, equation.invars
        names = [None if isinstance(variable, Literal) else variable for variable in variables]
        if kind == "exp":
            self._exponentials.update(equation.outvars)
        elif kind == "reduce_sum":
            self._sums[equation.outvars[0]] = names[0]
        elif kind in ("broadcast_in_dim", "reshape") and names[0] in self._sums:
            self._sums[equation.outvars[0]] = self._sums[names[0]]
        elif kind == "div" and names[0] in self._sums and names[1] is None:
            return "mean"
        elif kind == "div" and names[0] in self._exponentials:
            return "softmax" if self._sums.get(names[1]) is names[0] else ""
        return ""

    def _name(self, name: str, value: _From | None) -> _From | None:
        mark = name.removeprefix("into ").removeprefix("other ")
        number = self._layers.get(mark)
        if number is None:
            return value
        if value is not None and value.inside and value.node != self._places.get(mark):
            return value  # of a module inside one that is a single node
        if mark not in self._places:
            call = self._calls[number]
            outputs = jax.tree.leaves(call.output)
            shape = outputs[0].shape if len(outputs) == 1 else ()
            name_ = "/".join(call.path) or "(model)"
            self._places[mark] = self.node(Node("layer", name_, shape, number))
        place = self._places[mark]
        if value is not None:
            self.connect(value, place)
        return _From(place, inside=name.startswith("into "))

    def _joined(
        self, sign: str, values: Sequence[_From | None], shape: tuple[int, ...]
    ) -> _From | None:
        """Where a value comes from that is computed from these."""
        some = list(dict.fromkeys(value for value in values if value is not None))
        inside = _inside(some)
        if inside is not None:
            for value in some:
                self.connect(value, inside.node)
            return inside
        if not self._meet(some) or (sign == "write" and len({value.node for value in some}) < 2):
            return max(some, key=lambda value: len(value.words), default=None)
        place = self.node(Node("junction", sign, shape))
        for value in some:
            self.connect(value, place)
        return _From(place)

    def _meet(self, values: Sequence[_From | None]) -> bool:
        """Whether a value that is computed from these has a junction of its own."""
        some = {value for value in values if value is not None}
        ways = {value.node for value in some} if self._loops else some
        return not _inside(values) and len(ways) > 1

    def _loop(self, body: Jaxpr, values: _Values, consts: int, carried: int) -> _Values:
        first = values[consts : consts + carried]
        places = range(len(self._states), len(self._states) + carried)
        self._states += [(value, None) for value in first]
        states = [_From(-1 - place) for place in places]
        self._loops += 1
        found = self.run(body, [*values[:consts], *states, *values[consts + carried :]])
        self._loops -= 1
        for place, start, left in zip(places, first, found, strict=False):
            self._states[place] = (start, left)
        return [self._left(value, places) for value in found]

    def _left(self, value: _From | None, places: range) -> _From | None:
        """Where a value comes from that the loop of these states leaves in the end."""
        starts: dict[int, _From | None] = {}
        words: tuple[str, ...] = ()
        while value is not None and (place := -1 - value.node) in places:
            if place in starts:  # a state that no step changes
                return next(filter(None, starts.values()), None)
            words = (*value.words, *words)
            starts[place], value = self._states[place]
            value = starts[place] if value is None else value
        return value and value._replace(words=(*value.words, *words))

    def _sources(
        self, value: _From | None, back: bool, words: tuple[str, ...], passed: frozenset[int]
    ) -> Iterator[tuple[int, bool, tuple[str, ...]]]:
        """The nodes of which a step takes a value, whether from the step before, and the words.

        The first state of a loop may be the state of one around it.
        """
        if value is None or value.node in passed:
            return
        words = (*value.words, *words)
        if value.node >= 0:
            yield value.node, back, words
            return
        start, left = self._states[-1 - value.node]
        passed |= {value.node}
        yield from self._sources(start, False, words, passed)
        yield from self._sources(left, True, words, passed)

    def graph(self, calls: Sequence[Call]) -> Graph:
        edges = []
        for source, target, words in self._edges:
            for node, back, way in self._sources(_From(source), False, words, frozenset()):
                edges.append(Edge(node, target, back, way))
        return Graph(tuple(self._nodes), tuple(dict.fromkeys(edges)), tuple(calls))


def _inside(values: Sequence[_From | None]) -> _From | None:
    """The first value that is inside a layer."""
    return next((value for value in values if value is not None and value.inside), None)


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(getattr(variable.aval, "shape", ()))


def _has_marks(jaxpr: Jaxpr) -> bool:
    return any(
        equation.primitive.name == "name" or any(map(_has_marks, jaxprs_in_params(equation.params)))
        for equation in jaxpr.eqns
    )


def _word(equation: Any, inner: Sequence[Jaxpr]) -> str:
    """What an equation does, if that has a name."""
    names = (str(equation.params.get("name", "")), equation.primitive.name)
    for name in names:
        if name.strip("_") in _WORDS:
            return _WORDS[name.strip("_")]
    inside = itertools.chain.from_iterable(jaxpr.eqns for jaxpr in inner)
    words = (_word(each, list(jaxprs_in_params(each.params))) for each in inside)
    return next(filter(None, words), "")
