"""How fast do methods of training fit a function, and which functions can two layers fit?

Answer: Levenberg and Marquardt's method has its best validation error after 2 and 3 epochs, BFGS
and L-BFGS after 13 to 17, Adam and RMSProp after 76 to 348, gradient descent after 859 and 1,365.
In seconds they are closer, and the hastiest overfits the patients. Eight tanh units fit a sine to
0.0001, and 32 adders to 0.009; one adder unit is a kink exactly; polynomials fit none of the three.

Known: of nine methods Levenberg and Marquardt's is the fastest to fit a sine with five units, by
more than a factor of four (documentation of MATLAB's Deep Learning Toolbox). Two layers approximate
every continuous function if and only if the activation is no polynomial (Leshno et al., 1993), and
the squared error of smooth ones falls as 1 / units (Barron, 1993).

All methods fit the same networks from the same start of Nguyen and Widrow: ten tanh units on ten
measurements of 442 diabetes patients (scikit-learn), and on 94 noisy points of a curve, 70 % of
them to train, 15 % to validate, 15 % to test, all between -1 and 1. Each stops when the validation
error has not fallen for 6 epochs, or 200 for those that follow the gradient alone. An epoch is one
step on all examples. The second table fits three functions on [-1, 1] with ever more units by
Levenberg and Marquardt, 201 points, best of 5 starts: sin(3 pi x) is smooth, |x| has a kink, and
sgn(x) a step. An adder unit is relu(b - |x - w|), a hat; hats
start side by side. Units x^2 and x^3 can be no more than
polynomials of their degree, however many there are.

Ours, seed 0, 2.5 minutes of processor time on two cores of an AMD EPYC
(`results/function_fitting.json` and `.png`).

    python experiments/classics/function_fitting.py
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import scipy.optimize
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure

from nnlab import figures, runs
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.classics import fitting
from nnlab.classics.fitting import FitNet
from nnlab.errors import needs
from nnlab.figures.plots import COLOURS, INK, STYLE
from nnlab.layers import AdderDense
from nnlab.runs.fields import PositiveInt, Seed
from nnlab.runs.script import run

Steps = Iterator[tuple[Any, int]]


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/function_fitting"
    hidden: PositiveInt = 10
    epochs: PositiveInt = 5000
    """At most so many; a method that follows the gradient alone may need them."""
    largest: PositiveInt = 32
    """Units of the widest network of the second table."""
    starts: PositiveInt = 5
    """Starts of each network of the second table, of which the best counts."""
    seed: Seed = 0


def main(config: Config) -> None:
    with config.open() as record, jax.enable_x64():
        drawn = {}
        for name, (x, y) in data_sets(config.seed).items():
            drawn[name] = compare(name, x, y, config, record)
        for name, (model, function) in CASES.items():
            row: dict[str, object] = {"error by units": name}
            for units in sizes(config.largest):
                row[str(units)] = best_error(model(units), function, config)
            record.row(row, "approximation")
        record.result({"minutes": record.minutes})
        record.figure(figure(drawn, record.rows("approximation"), sizes(config.largest)))
        figures.print_table(record.rows())
        figures.print_table(record.rows("approximation"))


def sizes(largest: int) -> list[int]:
    return [units for units in (1, 2, 4, 8, 16, 32, 64, 128) if units <= largest]


def data_sets(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return inputs [n, inputs] and targets [n, 1] of each data set."""
    with needs("data"):
        from sklearn.datasets import load_diabetes
    x = np.linspace(0, 10, 94)[:, None]
    noise = np.random.default_rng(seed).normal(0, 0.05, x.shape)
    curve = np.sin(x) * np.exp(-x / 10) + noise
    patients: Any = load_diabetes()
    return {"curve": (x, curve), "diabetes": (patients.data, patients.target[:, None])}


def compare(name: str, x, y, config: Config, record: runs.Record) -> dict[str, Any]:
    """Fit a data set by each method; write the rows, and return what is drawn."""
    scales = fitting.Scale.of(x), fitting.Scale.of(y)
    x, y = (scale.down(values) for scale, values in zip(scales, (x, y), strict=True))
    parts = fitting.divide(jax.random.key(config.seed), len(x))
    model = FitNet(config.hidden)
    params = model.init(jax.random.key(config.seed), jnp.asarray(x))["params"]
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    errors = fitting.mean_squared_errors(model, x, y, parts)

    def residuals(params):
        fitted = jnp.asarray(model.apply({"params": params}, x[parts.train]))
        return (fitted - y[parts.train]).ravel() / np.sqrt(len(parts.train))

    chosen: dict[str, Any] = {"x": scales[0].up(x), "y": y, "parts": parts}
    for method, (make, patience) in METHODS.items():
        steps = make(residuals, params, config.epochs)
        fitted = fitting.fit_until(steps, params, errors, epochs=config.epochs, fails=patience)
        best = {part: found[fitted.best_epoch] for part, found in fitted.history.items()}
        outputs = np.asarray(model.apply({"params": fitted.params}, x))
        row: dict[str, Any] = {"data": name, "method": method, "best epoch": fitted.best_epoch}
        row |= {"epochs": len(fitted.history["train"]) - 1, "evaluations": fitted.evaluations}
        seconds = fitted.seconds
        if make is by_bfgs:  # its iterates come all at once
            seconds = bfgs_path(residuals, params, row["epochs"])[-1][-1]
        row |= {"seconds": seconds} | {f"{part} error": e for part, e in best.items()}
        record.row(row | {"R, test": correlation(outputs[parts.test], y[parts.test])})
        if method == "Levenberg-Marquardt":
            chosen |= {"outputs": outputs, "fitted": fitted}
    return chosen


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def by_optax(optimizer: Callable[[], Any]) -> Callable[..., Steps]:
    """Return a method that takes the steps of an optax optimiser on all examples."""

    def steps(residuals, params, epochs) -> Steps:
        made = optax.with_extra_args_support(optimizer())

        def loss(params):
            return jnp.sum(residuals(params) ** 2)

        @jax.jit
        def step(params, state):
            value, gradient = jax.value_and_grad(loss)(params)
            updates, state = made.update(
                gradient, state, params, value=value, grad=gradient, value_fn=loss
            )
            return optax.apply_updates(params, updates), state

        state, evaluations = made.init(params), 0
        for _ in range(epochs):
            params, state = step(params, state)
            searched = optax.tree.get(state, "num_linesearch_steps", 0)
            evaluations += 1 + int(searched)
            yield params, evaluations

    return steps


def by_newton(residuals, params, epochs) -> Steps:
    """Newton's method on the whole Hessian, damped until the error falls, as (3) of the lesson."""
    flat, unravel = ravel_pytree(params)

    @jax.jit
    def loss(flat):
        return jnp.sum(residuals(unravel(flat)) ** 2)

    derivatives = jax.jit(lambda flat: (jax.hessian(loss)(flat), jax.grad(loss)(flat)))
    solve = jax.jit(lambda h, g, mu: jnp.linalg.solve(h + mu * jnp.eye(len(g)), g))
    mu, evaluations, before = 1e-3, 1, loss(flat)
    for _ in range(epochs):
        curvature, gradient = derivatives(flat)
        while mu <= 1e10:
            moved = flat - solve(curvature, gradient, mu)
            after, evaluations = loss(moved), evaluations + 1
            if after < before:
                flat, before, mu = moved, after, mu * 0.1
                break
            mu *= 10
        else:
            return
        yield unravel(flat), evaluations


def bfgs_path(residuals, params, epochs: int) -> list[tuple[Any, int, float]]:
    """Let scipy's BFGS run; return its iterates with evaluations and seconds up to each."""
    flat, unravel = ravel_pytree(params)
    found, count = [], 0
    value_and_gradient = jax.jit(
        jax.value_and_grad(lambda flat: jnp.sum(residuals(unravel(flat)) ** 2))
    )

    def both(flat):
        nonlocal count
        count += 1
        value, gradient = value_and_gradient(flat)
        return float(value), np.asarray(gradient)

    def reached(flat):
        found.append((flat.copy(), count, time.perf_counter() - start))

    both(np.asarray(flat))  # compiles
    count, start = 0, time.perf_counter()
    scipy.optimize.minimize(
        *(both, np.asarray(flat)),
        **{"jac": True, "method": "BFGS", "options": {"maxiter": min(epochs, 300)}},
        callback=reached,
    )
    return [(unravel(jnp.asarray(flat)), *others) for flat, *others in found]


def by_bfgs(residuals, params, epochs) -> Steps:
    """Return the iterates of scipy's BFGS."""
    yield from ((point, count) for point, count, _ in bfgs_path(residuals, params, epochs))


METHODS: dict[str, tuple[Callable[..., Steps], int]] = {
    "Levenberg-Marquardt": (lambda e, p, _: fitting.levenberg_marquardt(e, p), 6),
    "Newton, damped": (by_newton, 6),
    "BFGS": (by_bfgs, 6),
    "L-BFGS": (by_optax(optax.lbfgs), 6),
    "gradient descent": (by_optax(lambda: optax.sgd(0.05)), 200),
    "RMSProp": (by_optax(lambda: optax.rmsprop(0.003)), 200),
    "Adam": (by_optax(lambda: optax.adam(0.01)), 200),
}


# The rules of the distance itself, as Levenberg and Marquardt's step takes derivatives for true.
DISTANCE = dataclasses.replace(
    ADDER, dense=functools.partial(AdderDense, filter_rule="sign", input_rule="sign")
)


def hats(units: int) -> FitNet:
    return FitNet(units, arithmetic=DISTANCE, activation=jax.nn.relu)


def evenly(params: Any, units: int) -> Any:
    """Return parameters whose hats stand side by side on [-1, 1], each two distances wide."""
    width = 2 / max(units - 1, 1)
    kernel = jnp.linspace(-1, 1, units)[None] if units > 1 else jnp.zeros((1, 1))
    bias = jnp.full(units, width)
    return params | {"hidden": {"adder_kernel": kernel}, "bias": bias}


def tanhs(units: int) -> FitNet:
    return FitNet(units, arithmetic=FLOAT)


def powers(power: int) -> Callable[[int], FitNet]:
    return lambda units: FitNet(units, activation=lambda x: x**power)


def sine(x: np.ndarray) -> np.ndarray:
    return np.sin(3 * np.pi * x)


CASES: dict[str, tuple[Callable[[int], FitNet], Callable[[np.ndarray], np.ndarray]]] = {
    "sine, tanh": (tanhs, sine),
    "sine, adder": (hats, sine),
    "sine, x^3": (powers(3), sine),
    "kink, tanh": (tanhs, np.abs),
    "kink, adder": (hats, np.abs),
    "kink, x^2": (powers(2), np.abs),
    "step, tanh": (tanhs, np.sign),
    "step, adder": (hats, np.sign),
    "step, x^3": (powers(3), np.sign),
}


def best_error(model: FitNet, function: Callable[[np.ndarray], np.ndarray], config: Config):
    """Return the least root of the mean squared error over the starts."""
    x = np.linspace(-1, 1, 201)[:, None]
    y = function(x)

    def residuals(params):
        return (jnp.asarray(model.apply({"params": params}, x)) - y).ravel() / np.sqrt(len(x))

    ends = []
    for start in range(config.starts):
        key = jax.random.fold_in(jax.random.key(config.seed), start)
        params = model.init(key, jnp.asarray(x))["params"]
        params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
        if model.arithmetic is DISTANCE:
            params = evenly(params, model.hidden)
        for moved, evaluations in fitting.levenberg_marquardt(residuals, params):
            params = moved
            if evaluations > 600:
                break
        ends.append(float(jnp.linalg.norm(residuals(params))))
    return min(ends)


@matplotlib.rc_context(STYLE)
def figure(drawn: dict[str, dict[str, Any]], table, units: list[int]) -> Figure:
    """Draw how the fits went, and errors against units."""
    page = Figure(figsize=(13, 7.2))
    places = page.subplots(2, 4)
    fits = [drawn["curve"], drawn["diabetes"]]
    for line, (name, found) in zip(places[:, :2], drawn.items(), strict=True):
        fitted, parts = found["fitted"], found["parts"]
        for colour, (part, errors) in zip(COLOURS, fitted.history.items(), strict=False):
            line[0].plot(errors, color=colour, label=part)
        best = fitted.best_epoch
        line[0].plot(best, fitted.history["validation"][best], "o", color=INK, mfc="none", ms=9)
        line[0].set(title=f"{name}: performance", xlabel="epoch", yscale="log")
        line[0].legend(title="○ best validation")
        for colour, (part, rows) in zip(COLOURS, parts._asdict().items(), strict=False):
            y, outputs = found["y"][rows], found["outputs"][rows]
            label = f"{part}, R = {correlation(outputs, y):.3f}"
            line[1].plot(y, outputs, ".", color=colour, markersize=4, label=label)
        line[1].plot([-1, 1], [-1, 1], color=INK, linewidth=0.8)
        every = correlation(found["outputs"], found["y"])
        line[1].set(title=f"{name}: regression, all R = {every:.3f}", xlabel="target")
        line[1].set(ylabel="output")
        line[1].legend()
    curve, patients = fits
    places[0, 2].plot(curve["x"], curve["y"], ".", color=COLOURS[3], markersize=4, label="data")
    places[0, 2].plot(curve["x"], curve["outputs"], color=COLOURS[0], label="fit")
    places[0, 2].set(title="curve: fit", xlabel="input")
    places[0, 2].legend()
    rows = patients["parts"]._asdict()
    errors = [(patients["y"] - patients["outputs"])[chosen].ravel() for chosen in rows.values()]
    places[1, 2].hist(errors, bins=20, stacked=True, color=COLOURS[:3], label=[*rows])
    places[1, 2].axvline(0, color=INK, linewidth=0.8)
    places[1, 2].set(title="diabetes: errors", xlabel="target - output")
    places[1, 2].legend()
    for place, some in ((places[0, 3], ("sine",)), (places[1, 3], ("kink", "step"))):
        for colour, row in enumerate(r for r in table if r["error by units"].startswith(some)):
            errors = [row[str(size)] for size in units]
            name = row["error by units"]
            place.plot(units, errors, "o-", color=COLOURS[colour], label=name, markersize=3)
        place.set(title="error by units", xlabel="units", xscale="log", yscale="log")
        place.legend()
    return page


if __name__ == "__main__":
    run(main, Config)
