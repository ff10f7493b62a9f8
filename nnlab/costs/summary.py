"""List the modules of a model: shapes, parameters by bit width, operations, energy.

The figures are those of the traced inference program. Operations of a layer are counted from its
own program; what runs between the layers (activations, pooling, shortcuts, gates of recurrent
cells) is the rest of the whole program (`nnlab.costs.modules`), so the lines add up to
`nnlab.costs.count`. The bits of a parameter are those in which it is stored
(`nnlab.costs.storage`): a weight that is used only through its sign takes one. Each parameter is in
the line of the first call that owns it. `inference_costs` gives such totals as the row of a table.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from nnlab.costs.counting import Counts, count
from nnlab.costs.energy import energy
from nnlab.costs.hardware import Kind
from nnlab.costs.modules import Call, layers_of, module_calls
from nnlab.costs.storage import at_rest, stored_bytes
from nnlab.errors import InputError

Path = tuple[str, ...]

NOTHING = Counts({}, {}, {}, {}, {}, {})


class Line(NamedTuple):
    """One call of a module, or what belongs to none.

    Attributes:
        path: names of the modules from the model to this one; () for the model itself.
        op: class of the module; "-" for parameters that no call has (of a head that only trains)
            and for the operations between the layers.
        shape: shape of the output of one call; () where there is none or it is not one array.
        parameters: {bits: how many}, without running statistics. A parameter of 0 bits is stored in
            the numbers of another.
        operations: operations of a layer in all steps of its loops; none for a module that calls
            others, unless they were `folded` into it.
        output_bytes: bytes that a layer returns in all steps, at the dtype of the computation.
        kind: what the sums of a layer are of, if it has one kernel (`nnlab.costs.hardware.Kind`).
    """

    path: Path
    op: str
    shape: tuple[int, ...] = ()
    parameters: dict[int, int] = {}  # noqa: RUF012
    operations: Counts = NOTHING
    output_bytes: int = 0
    kind: Kind | None = None

    @property
    def picojoules(self) -> float | None:
        """Energy by `nnlab.costs.energy`; None if an operation has no price."""
        try:
            return energy(self.operations)
        except InputError:
            return None


class Summary(NamedTuple):
    """The lines of a model and their sum.

    Attributes:
        lines: in the order of calls; what runs between the layers comes last.
        total: their sum; its `output_bytes` is the least that training keeps.
        statistics: how many numbers there are besides the parameters, such as running means.
        stored_bytes: bytes of parameters and statistics at rest.
    """

    lines: tuple[Line, ...]
    total: Line
    statistics: int
    stored_bytes: int


def summarize(model: nn.Module, variables: Any, inputs: Any) -> Summary:
    """Summarise a model by tracing its inference program; nothing is run.

    Args:
        model: called as `model.apply(variables, inputs)` for inference.
        variables: parameters in "params" and statistics, arrays or `jax.ShapeDtypeStruct`s.
        inputs: a batch, such as [batch, height, width, channels], the same.
    """
    calls = module_calls(model, variables, inputs)
    *layers, between = layers_of(calls, count(model.apply, variables, inputs))
    bits, bytes_ = at_rest(model.apply, variables, inputs)
    owned = _parameters(
        variables.get("params", {}),
        bits.get("params", {}),
        {call.path: call.is_layer for call in calls},
    )
    operations = iter(layers)
    lines = []
    for call in calls:
        line = Line(call.path, type(call.module).__name__, _shape(call), owned.pop(call.path, {}))
        if call.is_layer:
            layer = next(operations)
            size = sum(output.bytes for output in layer.outputs)
            line = line._replace(operations=layer.operations, output_bytes=size, kind=layer.kind)
        lines.append(line)
    lines += [Line(path, "-", parameters=parameters) for path, parameters in owned.items()]
    lines.append(Line((between.name,), "-", operations=between.operations))
    return Summary(
        tuple(lines),
        total=add(Line((), "sum"), lines),
        statistics=sum(
            leaf.size
            for collection, tree in variables.items()
            for leaf in jax.tree.leaves(tree)
            if collection != "params"
        ),
        stored_bytes=sum(jax.tree.leaves(bytes_)),
    )


def inference_costs(
    apply: Callable[..., Any], variables: Any, image: jax.Array
) -> dict[str, int | float]:
    """Count what one inference costs, as the row of a table.

    Args:
        apply: a model's `apply` in evaluation mode; `apply(variables, image)` is traced.
        variables: its parameters and statistics.
        image: a batch of one, such as [1, height, width, channels]; an array or a
            `jax.ShapeDtypeStruct`.

    Returns:
        Operations of each kind, bytes of the parameters at rest, and energy by
        `nnlab.costs.energy`, under names that carry the unit.
    """
    counts = count(apply, variables, image)
    totals = counts.totals()
    return {
        "multiplications": totals["multiplications"],
        "additions": totals["additions"],
        "bit ops": totals["bit_operations"],
        "parameter bytes": stored_bytes(apply, variables, image),
        "energy / nJ": energy(counts) / 1000,
    }


def folded(lines: Sequence[Line], levels: int) -> list[Line]:
    """Return the lines of the outer `levels` modules, each with its inner modules added up."""
    inside: dict[Path, list[Line]] = {}
    kept: dict[Path, int] = {}
    found: list[Line] = []
    for line in lines:
        outer = line.path[:levels]
        if len(line.path) > levels and outer in kept:
            inside.setdefault(outer, []).append(line)
        else:
            kept.setdefault(line.path, len(found))
            found.append(line)
    for path, others in inside.items():
        found[kept[path]] = add(found[kept[path]], others)
    return found


def add(line: Line, others: Iterable[Line]) -> Line:
    """Return the line with the parameters, operations and bytes of others added to its own."""
    every = [line, *others]
    parameters = _sum(other.parameters for other in every)
    return line._replace(
        parameters=dict(sorted(parameters.items(), reverse=True)),
        operations=Counts(
            *(_sum(kind) for kind in zip(*(o.operations for o in every), strict=True))
        ),
        output_bytes=sum(other.output_bytes for other in every),
    )


def _sum(numbers: Iterable[dict[Any, int]]) -> dict[Any, int]:
    total: Counter[Any] = Counter()
    for some in numbers:
        total.update(some)
    return dict(total)


def _shape(call: Call) -> tuple[int, ...]:
    outputs = jax.tree.leaves(call.output)
    return outputs[0].shape if len(outputs) == 1 else ()


def _parameters(
    parameters: Any, bits: Any, called: Mapping[Path, bool]
) -> dict[Path, dict[int, int]]:
    """Return {path: {bits: how many}} of modules that are called and of inner ones that are not.

    Args:
        parameters: the model's parameters.
        bits: bits of one number of each leaf.
        called: the paths of all calls, and whether they are layers.
    """
    leaves = jax.tree_util.tree_leaves_with_path(parameters)
    found: dict[Path, Counter[int]] = {}
    for (keys, leaf), width in zip(leaves, jax.tree.leaves(bits), strict=True):
        modules = tuple(key.key for key in keys[:-1])
        ends = (modules[:length] for length in range(len(modules), -1, -1))
        owner = next(path for path in ends if path in called)
        if not called[owner]:  # a layer has in it what it maps
            owner = modules[: len(owner) + 1]
        found.setdefault(owner, Counter())[width] += math.prod(leaf.shape)
    return {path: dict(widths) for path, widths in found.items()}
