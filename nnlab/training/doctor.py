"""What of a network cannot learn, found on one batch before the first step.

    for fault in diagnose(model, variables, (inputs, labels)):
        print(fault)

One forward and one backward pass look at every layer, which is a call of a Flax module with
parameters of its own:

=========================  ========================================================================
fault                      how it is seen
=========================  ========================================================================
numbers that are not       of a parameter, of what a layer gives, of the loss
  finite
the same for every         what a layer gets or gives differs between examples by a millionth of its
  example                  size at most: dead activations, layers that take signs of one sign only
multiples of one another   what a layer gives, where its inputs have one sign: signs again, with a
                           scale for each position
far from zero              numbers lie around a mean of 15 times their deviation from example to
                           example, as adder layers give without a normalisation after them
outputs that saturate      the loss is 15 times that of a guess
probabilities              the outputs are of one softmax, and the loss takes another
filters that stay equal    all filters of a layer are the same, and so are their gradients
no gradient                that of a parameter is below 1e-10 of the largest
statistics that lag        of a normalisation: they do not move, or more than half of their start
                           is left in them at the end
=========================  ========================================================================

What is idle by design is passed over: a module names it in `idle_parameters`, paths from it such as
("key/bias",), each of a parameter or of a layer.

Silence does not mean that a network learns.
"""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_leaves_with_path

from nnlab.data.batches import shared_size
from nnlab.errors import InputError
from nnlab.optim.freezing import path_name
from nnlab.training.loss_scaling import widened
from nnlab.training.losses import cross_entropy
from nnlab.training.models import check_model
from nnlab.training.observed import (
    EXAMPLES,
    SEEN,
    Call,
    difference,
    numbers,
    seen_at,
    some,
    watching,
)

_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Fault(NamedTuple):
    """One fault.

    Attributes:
        where: path of the layer or parameter, or what else has the fault.
        what: how it shows, and what to do.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where} {self.what}"


def diagnose(
    model: nn.Module,
    variables: Any,
    batch: tuple[Any, Any],
    loss: Callable[[Any, Any], jax.Array] = cross_entropy,
    *,
    augment: Callable[[jax.Array, Any], Any] | None = None,
    mix: Callable[[jax.Array, Any, Any], Any] | None = None,
    steps: int = 100,
    loss_scale: float = 1.0,
) -> list[Fault]:
    """Look for what cannot learn, as in this module's text; nothing is changed.

    Args:
        model: called as `model(inputs, train=True)`, with the random stream "dropout".
        variables: its "params" and "batch_stats", fresh or trained.
        batch: (inputs, labels), arrays [examples, ...] or trees of them; 16 examples are taken.
        loss, augment, mix: as in `nnlab.training.train_step`.
        steps: of the training, after which running statistics must be those of its end.
        loss_scale: what float16 needs, so that gradients are not taken for none.

    Returns:
        The faults, the first of each chain of consequences; empty if there is none.

    Raises:
        InputError: the model is none that `nnlab.training.init` takes.
    """
    check_model(model)
    try:
        size = min(shared_size(batch), EXAMPLES)
        batch = jax.tree.map(lambda a: jnp.asarray(a[:size]), batch)
    except InputError:
        pass  # one example without an axis of examples, such as a graph
    modules: dict[str, nn.Module] = {}
    idle: set[str] = set()
    rest = {kind: tree for kind, tree in variables.items() if kind != "params"}

    def objective(params, inputs, labels, key):
        with nn.intercept_methods(watching(modules, idle)):
            outputs, updates = model.apply(
                {"params": params, **rest},
                inputs,
                train=True,
                mutable=["batch_stats", SEEN],
                rngs={"dropout": key},
            )
        value = loss(outputs if loss_scale == 1 else widened(outputs), labels)
        return value * loss_scale, (outputs, updates)

    def look(params, batch, key):
        inputs, labels = batch
        if augment is not None:
            inputs = augment(key, inputs)
        if mix is not None:
            inputs, labels = mix(key, inputs, labels)
        (value, (outputs, updates)), grads = jax.value_and_grad(objective, has_aux=True)(
            params, inputs, labels, key
        )
        return value, some(outputs), some(inputs), updates, grads

    found = jax.jit(look, compiler_options=_QUICK)(variables["params"], batch, jax.random.key(0))
    value, outputs, inputs, updates, grads = jax.device_get(found)
    value = value / loss_scale
    outputs, inputs, seen = numbers(outputs), numbers(inputs), updates.get(SEEN, {})
    calls = [
        Call(name, *map(numbers, arrays))
        for name, module in modules.items()
        for arrays in seen_at(seen, module.path)[:1]
    ]
    named = re.compile("|".join(f"{re.escape(path)}(/|$)" for path in idle) or "(?!)").match
    params = variables["params"]
    broken = _not_finite(params, calls, float(value), batch[1], outputs)
    if broken:
        return broken
    if augment is None and any(leaf.dtype == np.uint8 for leaf in jax.tree.leaves(batch[0])):
        what = (
            "holds bytes as they are in files; standardise them, as nnlab.vision.standardized does."
        )
        return [Fault("The batch", what)]
    calls = [call for call in calls if not named(call.name)]
    silent = _same_for_all(calls, inputs, outputs)
    faults = [*silent, *_equal_filters(params, grads)]
    faults += _far(calls, outputs) or _multiples(calls) or _saturated(float(value), outputs)
    faults += [] if silent else _without_gradient(grads, named)
    return faults + _lagging(modules, variables, updates, steps)


def _not_finite(
    params: Any, calls: list[Call], loss: float, labels: Any, outputs: dict[str, Any] | None
) -> list[Fault]:
    for path, leaf in tree_leaves_with_path(params):
        if not np.isfinite(np.asarray(leaf, np.float32)).all():
            return [Fault(path_name(path), "holds a number that is not finite.")]
    for name, x, y in calls:
        if x is not None and not x["finite"]:
            return [Fault(name, "gets numbers that are not finite.")]
        if y is not None and not y["finite"]:
            return [Fault(name, "gives numbers that are not finite.")]
    if not np.isfinite(loss) and outputs is not None and hasattr(labels, "dtype"):
        low, high, classes = np.min(labels), np.max(labels), outputs["features"]
        if jnp.issubdtype(labels.dtype, jnp.integer) and not 0 <= low <= high < classes:
            what = f"go from {low} to {high}, those of {classes} outputs from 0 to {classes - 1}."
            return [Fault("The labels", what)]
    if not np.isfinite(loss):
        return [Fault("The loss", f"is {loss}, as it is if a label is none of the classes.")]
    return []


def _same_for_all(calls: list[Call], inputs: Any, outputs: Any) -> list[Fault]:
    if inputs is not None and not inputs["varies"]:
        return [Fault("The batch", "holds the same input in every example.")]
    before = None
    for name, x, y in calls:
        if x is not None and not x["varies"]:
            why = "an activation lets nothing through"
            if before is not None and before.outputs is not None and before.outputs["high"] <= 0:
                why = (
                    f"{before.name} gives no positive number, of which a ReLU leaves nothing; "
                    "put a normalisation between them"
                )
            return [Fault(name, f"gets the same input for every example: {why}.")]
        if y is not None and not y["varies"]:
            return [Fault(name, f"gives the same for every example{_signs(x)}.")]
        before = Call(name, x, y)
    if outputs is not None and not outputs["varies"]:
        return [Fault("The network", "gives the same for every example.")]
    return []


def _signs(x: dict[str, Any] | None) -> str:
    if x is None or x["low"] < 0 < x["high"]:
        return ""
    never = "negative" if x["low"] >= 0 else "positive"
    return (
        f": its inputs are never {never}, so that it sees nothing if it takes their signs; give it "
        "inputs of both signs, from a normalisation without a ReLU after it"
    )


def _multiples(calls: list[Call]) -> list[Fault]:
    return [
        Fault(name, f"gives multiples of one and the same output{_signs(x)}.")
        for name, x, y in calls
        if x is not None and y is not None and y["varies"] and _signs(x)
        if y["alike"] > 1 - 1e-6 and x["alike"] < 1 - 1e-6
    ][:1]


def _far(calls: list[Call], outputs: Any) -> list[Fault]:
    for name, x, y in calls:
        if x is not None and x["varies"] and _is_far(x) and name != calls[0].name:
            if y is None or not _is_far(y):
                continue  # the layer is the normalisation
            return [Fault(name, f"gets inputs {_around(x)}; normalise what comes before it.")]
    if outputs is not None and outputs["varies"] and _is_far(outputs):
        return [Fault("The network", f"gives outputs {_around(outputs)}; normalise them.")]
    return []


def _is_far(x: dict[str, Any]) -> bool:
    return bool(abs(x["mean"]) > 15 * x["deviation"])


def _around(x: dict[str, Any]) -> str:
    return f"around {x['mean']:.4g} that differ by {x['deviation']:.2g} between examples"


def _saturated(loss: float, outputs: Any) -> list[Fault]:
    if outputs is None:
        return []
    if outputs["low"] >= 0 and outputs["sums"] < 1e-3:
        return [
            Fault(
                "The network",
                "gives probabilities, of which the loss takes the softmax again; leave it out.",
            )
        ]
    guess = math.log(max(outputs["features"], 2))
    if loss > 15 * guess:
        far = max(abs(outputs["low"]), abs(outputs["high"]))
        return [
            Fault(
                "The network",
                f"starts at a loss of {loss:.3g}, where a guess has {guess:.3g}: its outputs reach "
                f"{far:.3g}; normalise or scale them.",
            )
        ]
    return []


def _equal_filters(params: Any, grads: Any) -> list[Fault]:
    what = "holds the same filter again and again, and their gradients are the same; draw it."
    leaves = tree_leaves_with_path(params)
    return [
        Fault(path_name(path), what)
        for (path, leaf), gradient in zip(leaves, jax.tree.leaves(grads), strict=True)
        if difference(leaf) == 0 and difference(gradient) < 1e-5
    ][:1]


def _without_gradient(grads: Any, idle: Callable[[str], Any]) -> list[Fault]:
    leaves = tree_leaves_with_path(grads)
    sizes = {
        path_name(path): float(abs(np.asarray(g, np.float32)).max(initial=0)) for path, g in leaves
    }
    least = 1e-10 * max(sizes.values(), default=0.0)
    names = [name for name, size in sizes.items() if size <= least and not idle(name)]
    if not names:
        return []
    more = f" and {len(names) - 1} more parameters" if len(names) > 1 else ""
    verb = "get" if more else "gets"
    return [
        Fault(
            names[0] + more,
            f"{verb} no gradient: the loss does not depend on it, or what comes after it has none.",
        )
    ]


def _lagging(
    modules: dict[str, nn.Module], variables: Any, updates: Any, steps: int
) -> list[Fault]:
    found = []
    for name, module in modules.items():
        if not isinstance(module, nn.BatchNorm):
            continue
        old, new = variables.get("batch_stats", {}), updates.get("batch_stats", {})
        for key in module.path:
            old, new = old.get(key, {}), new.get(key, {})
        left = module.momentum**steps
        if all(np.array_equal(old[leaf], new[leaf]) for leaf in old if leaf in new):
            found.append(Fault(name, "does not take the statistics of a training batch."))
        elif left > 0.5:
            found.append(
                Fault(
                    name,
                    f"still has {100 * left:.0f} % of its first statistics after {steps} steps; "
                    f"its momentum of {module.momentum} is too large for so few.",
                )
            )
    return found[:1]
