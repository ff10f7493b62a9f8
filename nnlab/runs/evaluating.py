"""How `nnlab.runs.fit` measures a state: on which data, with which statistics, what it keeps."""

import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from nnlab.data.batches import shared_size
from nnlab.errors import InputError
from nnlab.optim.recipes import labels as kinds_of_weights
from nnlab.training.evaluation import Evaluation
from nnlab.training.feeds import Feed
from nnlab.training.measures import (
    Measures,
    confidences,
    confident_errors,
    is_classification,
    measure,
)
from nnlab.training.parallel import EVERYWHERE, replicate
from nnlab.training.statistics import BATCHES, compiled_statistics
from nnlab.training.steps import Batch, Metrics, State, Step

Renew = Callable[[State], State]
Statistics = Renew | Literal["auto"] | None
Evaluate = Callable[[State, Batch], Metrics]

_EXAMPLES = 1000  # of evaluation, for which a signal waits at most
_ERRORS = 24  # whose numbers are kept


def as_it_is(state: State) -> State:
    """Return the state."""
    return state


def renewal(
    statistics: Statistics,
    state: State,
    step: Step,
    evaluate: Evaluate,
    train: Feed,
    mesh: Mesh | None,
) -> Renew:
    """Return what a state goes through before it is evaluated, compiled.

    By default, "auto", statistics of BatchNorm are taken anew where the weights of L1 layers move
    too fast for running averages, if the network and some of its inputs are at hand.
    """
    if statistics is None or callable(statistics):
        return statistics or as_it_is
    if statistics != "auto":
        raise InputError(f'statistics are {statistics!r}, expected "auto", None or a function.')
    found = isinstance(evaluate, Evaluation) and state.batch_stats and not state.carry
    adders = "adder" in jax.tree.leaves(kinds_of_weights(state.params))
    if not (found and adders and isinstance(evaluate, Evaluation)) or train.sample is None:
        return as_it_is
    weights = evaluate.weights
    renew = compiled_statistics(
        state._replace(params=weights(state)),
        evaluate.model,
        train.sample(BATCHES),
        train.batch_size,
        augment=getattr(step, "augment", None),
        mesh=mesh,
    )
    return lambda state: state._replace(
        batch_stats=renew(state._replace(params=weights(state))).batch_stats
    )


def _numbers_of_classes(labels: Any) -> Any:
    """Return what one-hot labels in memory stand for, and all others as they are."""
    if getattr(labels, "ndim", 0) != 2 or not getattr(labels, "is_fully_addressable", True):
        return labels
    shares = np.asarray(labels)
    one_hot = ((shares == 0) | (shares == 1)).all() and (shares.sum(axis=1) == 1).all()
    return shares.argmax(axis=1) if one_hot else labels


class Examination:
    """Measures states on one set of examples, piece by piece, each with the program for its size.

    Args:
        evaluate, mesh: as for `fit`.
        name: of the set, for errors.
        data: (inputs, labels).

    Attributes:
        step: that of the state last examined, or None before the first.
        outputs: those of the network in the last examination, [n, classes], where they and the
            labels make a classification; None otherwise.
    """

    def __init__(self, evaluate: Any, name: str, data: Batch, mesh: Mesh | None):
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise InputError(
                f"{name} is {data!r:.60}, expected a pair (inputs, labels);"
                " nnlab.data.hold_out sets a share of the training data aside."
            )
        self._evaluate, self._name, self._mesh = evaluate, name, mesh
        self._labels = _numbers_of_classes(data[1])
        self.step: int | None = None
        self.outputs: np.ndarray | None = None
        self._pieces = [
            jax.tree.map(operator.itemgetter(slice(start, start + _EXAMPLES)), data)
            for start in range(0, shared_size(data), _EXAMPLES)
        ]
        self._programs: dict[int, Any] = {}

    @property
    def classifies(self) -> bool:
        """Whether the outputs may be those of a classification."""
        kept = isinstance(self._evaluate, Evaluation) and self._evaluate.with_outputs is not None
        return kept and getattr(self._labels, "ndim", 0) == 1

    def check(self, state: State) -> None:
        """Raise `InputError` if the network takes no such inputs, or has no such classes."""
        if not isinstance(self._evaluate, Evaluation):
            return
        try:
            jax.eval_shape(self._program(), state, self._pieces[0])
        except InputError:
            raise
        except Exception as error:  # of the model
            first = str(error).strip().partition("\n")[0].rstrip(".")
            kind = type(self._evaluate.model).__name__
            raise InputError(
                f"{kind} does not take the inputs of {self._name}: {first}."
            ) from error
        self._evaluate.check_labels(state, self._pieces[0][0], self._labels)

    def compile(self, state: State) -> None:
        """Compile all programs that states like this one need."""
        for number, piece in enumerate(self._pieces):
            if self._mesh is not None:
                piece = self._pieces[number] = replicate(piece, self._mesh)
            if (size := shared_size(piece)) not in self._programs:
                self._programs[size] = self._program().lower(state, piece).compile()

    def _program(self) -> Any:
        evaluate = self._evaluate

        def measured(state: State, piece: Batch) -> tuple[Metrics, Any]:
            if self.classifies and evaluate.with_outputs is not None:
                metrics, outputs = evaluate.with_outputs(state, piece)
                size = jax.ShapeDtypeStruct((shared_size(piece),), self._labels.dtype)
                return metrics, outputs if is_classification(outputs, size) else None
            return evaluate(state, piece), None

        if self._mesh is None:
            return jax.jit(measured)
        return jax.jit(measured, out_shardings=NamedSharding(self._mesh, EVERYWHERE))

    def __call__(
        self, state: State, stop: Callable[[], Any] = lambda: False
    ) -> dict[str, float] | None:
        """Return the means over all examples, or None if `stop` says so in between."""
        if not self._programs:
            self.compile(state)
        sums: dict[str, float] = {}
        outputs = []
        for piece in self._pieces:
            if stop():
                return None
            size = shared_size(piece)
            metrics, logits = self._programs[size](state, piece)
            for key, value in metrics.items():
                sums[key] = sums.get(key, 0.0) + float(value) * size
            outputs.append(logits)
        examples = sum(map(shared_size, self._pieces))
        found = outputs[0] is not None
        self.step = int(state.step)
        self.outputs = np.concatenate([np.asarray(each) for each in outputs]) if found else None
        if self.outputs is not None and not self._is_classification(self.outputs):
            self.outputs = None
        return {key: value / examples for key, value in sums.items()}

    def _is_classification(self, outputs: np.ndarray) -> bool:
        """Whether outputs are finite and labels classes, which a loss of one's own may not need."""
        labels = np.asarray(jax.device_get(self._labels))
        classes = 0 <= labels.min() <= labels.max() < outputs.shape[1]
        return bool(classes and np.isfinite(outputs.astype(np.float32)).all())

    @property
    def measures(self) -> Measures | None:
        """Measures over all outputs of the last examination, where it was a classification."""
        return None if self.outputs is None else measure(self.outputs, self._labels)

    def errors(self) -> list[dict[str, Any]]:
        """Return the most confident errors: number in the set, true, predicted, confidence."""
        if self.outputs is None:
            return []
        labels = np.asarray(jax.device_get(self._labels))
        some = confident_errors(self.outputs, labels, _ERRORS)
        return [
            {
                "example": int(number),
                "true": int(labels[number]),
                "predicted": int(self.outputs[number].argmax()),
                "confidence": round(float(confidences(self.outputs[[number]])[0]), 6),
            }
            for number in some
        ]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the test set says of the network that a training chose.

    Attributes:
        epoch: the chosen one, from 1.
        chosen_on: "validation" or "test", by whose score that epoch is the best; None where it is
            the last one and nothing was chosen.
        metrics: those of the test set: `loss`, `accuracy`, ….
        validation: those of the validation set at that epoch; empty without one.
        measures: over all test outputs, of a classification.
        errors: its most confident errors, as `nnlab.runs.evaluating.Examination` gives them.
    """

    epoch: int
    chosen_on: Literal["validation", "test"] | None
    metrics: Mapping[str, float]
    validation: Mapping[str, float] = dataclasses.field(default_factory=dict)
    measures: Measures | None = None
    errors: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as `result.json` holds it, in its part "measures"."""
        found: dict[str, Any] = {"epoch": self.epoch, "chosen_on": self.chosen_on}
        found["test"] = dict(self.metrics)
        if self.validation:
            found["validation"] = dict(self.validation)
        if self.measures is not None:
            found["test"] |= self.measures.as_json()
            found["errors"] = self.errors
        return found
