"""Does it pay to look for initial weights by a genetic algorithm before training starts?

Answer: No. Passes over the examples that a search takes do more as further steps of training: in 12
comparisons with a plain start that trains for as much longer, the genetic start ends with a higher
training loss in 7 and with a lower one in none, and the test errors differ in none. At equal steps
it lowers the training loss of the digits to two thirds or three quarters, and not their test error.
One network of six gains by it, the float one on two spirals: 6 points of test error, where longer
training gains 7.

Known: weights of small networks have been evolved in place of backpropagation (Montana & Davis,
1989). No publication with figures for a genetic start of backpropagation was found.

Evosax's genetic algorithm (equation 1 of `nnlab.classics.genetic`, mutations of a tenth of the
weights' spread, half of the numbers from each parent) minimises the training loss at once, in 2,048
evaluations, or after 5 steps of training, in 128: 2,048 passes forward over the training set either
way, if a gradient costs as much as two passes more. `restarts` takes the best of as many first
draws, and `plain, longer` spends the passes on 682 more steps; on the digits these took 0.11 s of
the processor and the searches 0.09 to 0.20 s in float. Draws of a seed begin with the
same networks in all rows, and differences are taken seed by seed. Intervals are of 95 % by
Student's t; of 72 such verdicts three or four would differ by chance alone.

On XOR the float networks with the least loss after 5 steps are stuck more often than any draw, if
anything: a third of their answers are wrong, and 15 % of those of plain starts.

All networks train by Adam, adder layers by the recipe of adders, and all examples at once: XOR with
2 sigmoid units, two spirals of 97 points each with two layers of 16 tanh units, and the digits with
32 sigmoid units on 479 images. Float networks have no BatchNorm, and adders do.

Ten seeds, 0 to 9, evosax 0.3.2, 13 minutes on two cores of an AMD EPYC that others were using, so
that seconds of the processor count (`results/genetic_start.json` and `.png`).

    python experiments/classics/genetic_start.py
"""

import dataclasses
import functools
import importlib.metadata
import time
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats
from jax import lax

from nnlab import figures, runs, training, vision
from nnlab.arithmetics import ADDER, FLOAT, Arithmetic
from nnlab.classics.genetic import evolve, random_restarts
from nnlab.errors import InputError, needs
from nnlab.figures.panels import Line, Panel, figure_panels
from nnlab.models import MLP
from nnlab.optim import deep_recipe
from nnlab.runs.fields import Positive, Seed, Some, SomeOf
from nnlab.runs.script import run

BUDGET = 2048  # forward passes over the training set, in each search
EXTRA = BUDGET // 3  # steps for as much: a gradient costs a pass and about two backwards
# By the steps of training in a fitness: members and generations, the first population among them.
SIZES = {0: (64, 32), 5: (16, 8)}
STARTS: dict[str, tuple[str, int] | None] = {
    "plain": None,
    "plain, longer": None,
    **{f"{how}, {steps} steps": (how, steps) for steps in SIZES for how in ("restarts", "genetic")},
}


class Problem(NamedTuple):
    """Examples, and the hidden layers that shall learn them in so many steps."""

    train: tuple[jax.Array, jax.Array]
    test: tuple[jax.Array, jax.Array]
    depth: int
    width: int
    activation: Callable[[jax.Array], jax.Array]
    steps: int


def xor() -> Problem:
    x = jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]], jnp.float32)
    examples = x, jnp.array([0, 1, 1, 0])
    return Problem(examples, examples, 1, 2, jax.nn.sigmoid, 1000)


def spirals() -> Problem:
    """Two arms of three turns, 97 points each, and to test the points halfway between those."""

    def points(shift: float) -> tuple[jax.Array, jax.Array]:
        place = jnp.arange(97) + shift
        angle = place * jnp.pi / 16
        arm = (1 - place / 104) * jnp.array([jnp.sin(angle), jnp.cos(angle)])
        return jnp.concatenate([arm.T, -arm.T]), jnp.repeat(jnp.arange(2), 97)

    return Problem(points(0), points(0.5), 2, 16, jnp.tanh, 1000)


def digits() -> Problem:
    """A third of the training images, and all of the test."""
    images = vision.prepared(vision.load("digits"))
    few = images.train[0][::3], images.train[1][::3]
    return Problem(few, images.test, 1, 32, jax.nn.sigmoid, 300)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "XOR": xor,
    "spirals": spirals,
    "digits": digits,
}


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/genetic_start"
    problems: Annotated[tuple[str, ...], SomeOf(PROBLEMS)] = tuple(PROBLEMS)
    mutation: Positive = 0.1
    """Size of mutations, in spreads of the weights."""
    seeds: Some[Seed] = tuple(range(10))

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.seeds) < 2:
            raise InputError(f"--seeds must be two or more, for an interval, not {self.seeds}.")


def main(config: Config) -> None:
    with needs("classics"):
        version = importlib.metadata.version("evosax")
    with config.open() as record:
        record.result({"evosax": version})
        curves: dict[str, dict[str, Any]] = {}
        for name in config.problems:
            problem = PROBLEMS[name]()
            for arithmetic in (FLOAT, ADDER):
                case = {"problem": name, "network": arithmetic.name}
                ends = compare(problem, arithmetic, config)
                for start, found in ends.items():
                    record.row(case | {"start": start} | summary(start, found))
                for row in differences(ends):
                    record.row(case | row, "differences")
                curves[f"{name}, {arithmetic.name}"] = {
                    start: np.exp(np.mean([np.log(one.losses) for one in found], 0))
                    for start, found in ends.items()
                }
                record.result({"minutes": record.minutes})
        record.figure(figure(curves))
        figures.print_table(record.rows())
        figures.print_table(record.rows("differences"))


class Ended(NamedTuple):
    """The search for a start and the training from it, with one seed."""

    search: tuple[float, float]  # seconds by the wall, and of the processor
    training: tuple[float, float]
    losses: np.ndarray  # of the training examples, before each step and after the last
    error: float  # of the test examples, percent


class Task:
    """A problem in an arithmetic, trained on all examples at once, so that nothing is drawn."""

    def __init__(self, problem: Problem, arithmetic: Arithmetic):
        self.problem = problem
        self.model = MLP(
            *(int(problem.train[1].max()) + 1, arithmetic, arithmetic),
            depth=problem.depth,
            width=problem.width,
            activation=problem.activation,
            norm=arithmetic.needs_norm,
        )

    def draw(self, key: jax.Array, members: int) -> Any:
        """Return initial weights, arrays [members, ...]; more members begin with the same ones."""
        some = self.problem.train[0][:2]
        return jax.vmap(lambda n: self.model.init(jax.random.fold_in(key, n), some)["params"])(
            jnp.arange(members)
        )

    def loss(self, params: Any, statistics: Any) -> tuple[jax.Array, Any]:
        """Return the loss of the training examples, and BatchNorm's running statistics after it."""
        variables = {"params": params, "batch_stats": statistics}
        inputs, labels = self.problem.train
        outputs, new = self.model.apply(variables, inputs, train=True, mutable="batch_stats")
        return training.cross_entropy(jnp.asarray(outputs), labels), new.get("batch_stats", {})

    def advance(self, params: Any, steps: int, of: int) -> tuple[dict[str, Any], jax.Array]:
        """Return the variables after the first steps `of` a training, and `Ended.losses`."""
        optimizer = deep_recipe(of, 0.03)
        start = self.model.init(jax.random.key(0), self.problem.train[0]).get("batch_stats", {})

        def step(carry, _):
            params, statistics, state = carry
            both = jax.value_and_grad(self.loss, has_aux=True)(params, statistics)
            (loss, statistics), gradient = both
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), statistics, state), loss

        carry = params, start, optimizer.init(params)
        (params, statistics, _), losses = lax.scan(step, carry, length=steps)
        last = self.loss(params, statistics)[0]
        return {"params": params, "batch_stats": statistics}, jnp.append(losses, last)

    def error(self, variables: dict[str, Any]) -> jax.Array:
        """Return the test error in percent."""
        inputs, labels = self.problem.test
        return 100 * jnp.mean(
            jnp.argmax(jnp.asarray(self.model.apply(variables, inputs)), -1) != labels
        )

    def find(self, key: jax.Array, search: tuple[str, int] | None, mutation: float) -> Any:
        """Return the weights with which training starts."""
        if search is None:
            return jax.tree.map(lambda weights: weights[0], self.draw(key, 1))
        how, steps = search
        members, generations = SIZES[steps]

        def loss(params):
            return self.advance(params, steps, self.problem.steps)[1][-1]

        if how == "restarts":
            return random_restarts(loss, self.draw(key, members * generations)).params
        first = self.draw(key, members)
        return evolve(key, loss, first, generations - 1, mutation=mutation).params


def compare(problem: Problem, arithmetic: Arithmetic, config: Config) -> dict[str, list[Ended]]:
    """Train from each start with each seed."""
    task = Task(problem, arithmetic)
    trainings = {
        extra: jax.jit(functools.partial(task.advance, steps=steps, of=steps))
        for extra in (0, EXTRA)
        for steps in [problem.steps + extra]
    }
    error = jax.jit(task.error)
    ends: dict[str, list[Ended]] = {}
    for name, search in STARTS.items():
        find = jax.jit(functools.partial(task.find, search=search, mutation=config.mutation))
        train = trainings[EXTRA if name == "plain, longer" else 0]
        jax.block_until_ready(train(find(jax.random.key(0))))  # compiles
        ends[name] = []
        for seed in config.seeds:
            params, searched = timed(find, jax.random.key(seed))
            (variables, losses), trained = timed(train, params)
            losses = np.asarray(losses, np.float64)
            ends[name].append(Ended(searched, trained, losses, float(error(variables))))
    return ends


def timed(function: Callable, *arguments: Any) -> tuple[Any, tuple[float, float]]:
    """Return what a compiled function returns, and its seconds by the wall and of the processor."""
    start = time.perf_counter(), time.process_time()
    found = jax.block_until_ready(function(*arguments))
    return found, (time.perf_counter() - start[0], time.process_time() - start[1])


def interval(values: Any) -> tuple[float, float]:
    """Return the mean, and half the 95 % interval of Student's t around it."""
    values = np.asarray(values, np.float64)
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
    return float(values.mean()), float(half)


def shown(values: Any) -> str:
    mean, half = interval(values)
    return f"{mean:.2f} ± {half:.2f}"


def ending(ends: list[Ended]) -> np.ndarray:
    return np.log10([end.losses[-1] for end in ends])


def summary(start: str, ends: list[Ended]) -> dict[str, Any]:
    """Return a row of the table: means over the seeds, with 95 % intervals."""
    how, steps = STARTS[start] or ("", 0)
    search, taught = ([getattr(end, part) for end in ends] for part in ("search", "training"))
    return {
        "evaluations": int(np.prod(SIZES[steps])) if how else 0,
        "search / s": float(np.mean(search, 0)[0]),
        "of processor / s": float(np.mean(search, 0)[1]),
        "steps": len(ends[0].losses) - 1,
        "training / s": float(np.mean(taught, 0)[0]),
        "of processor, too / s": float(np.mean(taught, 0)[1]),
        "loss at start": float(np.mean([end.losses[0] for end in ends])),
        "log10 of loss": shown(ending(ends)),
        "test error / %": shown([end.error for end in ends]),
    }


def differences(ends: dict[str, list[Ended]]) -> list[dict[str, Any]]:
    """Return what genetic starts gain over others with the same seeds, with 95 % intervals."""
    rows = []
    for steps in SIZES:
        one = f"genetic, {steps} steps"
        for other in ("plain", f"restarts, {steps} steps", "plain, longer"):
            gained = ending(ends[one]) - ending(ends[other])
            errors = [a.error - b.error for a, b in zip(ends[one], ends[other], strict=True)]
            row = {"start": one, "against": other, "log10 of loss": shown(gained)}
            row |= {"by the loss": verdict(gained), "test error / points": shown(errors)}
            rows.append(row | {"by the test error": verdict(errors)})
    return rows


def verdict(differences: Any) -> str:
    """Say what the 95 % interval of differences says; less is better."""
    mean, half = interval(differences)
    if not abs(mean) > half:
        return "no difference"
    return "better" if mean < 0 else "worse"


def figure(curves: dict[str, dict[str, np.ndarray]]):
    panels = []
    for name, starts in curves.items():
        lines = []
        for number, (start, losses) in enumerate(starts.items()):
            passes = 3 * np.arange(len(losses)) + (BUDGET if STARTS[start] else 0)
            named = start if name == [*curves][-1] else ""  # the last panel has room
            lines.append(Line(named, passes, losses, number))
        labels = "passes, those of the search first", "training loss"
        panels.append(Panel(name, *labels, lines, ("linear", "log")))
    return figure_panels(panels)


if __name__ == "__main__":
    run(main, Config)
