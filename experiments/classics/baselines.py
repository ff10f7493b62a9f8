"""What accuracy does each kind of learner reach on digits, and after how long a training?

Answer: On MNIST LeNet-5 errs least, on 0.84 % of the test images in float and on 0.98 as AdderNet
after 34 and 40 processor seconds; an MLP errs on 1.41 and 1.69 after 8 and 9, a decision tree on
12.2 after 19.

Ours: seed 0, two cores of an AMD EPYC that other programs used too (`results/baselines.json`).

Known, on MNIST in percent of the test images that are wrong: support vector machine with a Gaussian
kernel 1.4, 500 and 150 hidden units 2.95, LeNet-5 0.95 (LeCun et al., Gradient-based learning
applied to document recognition, 1998, and its page).

Learners of scikit-learn and of nnlab see pixels from 0 to 1. The support vector machine (C = 10,
gamma "scale") sees 10,000 of MNIST's images, as its time grows as their square; all others see all.
Perceptrons decide by the mean of their weights over the epochs. The MLP has two layers of 256
units; the deep belief network's two layers of 256 sigmoid units learn by contrastive divergence
before the labels are used. LeNet-5 has BatchNorm, and as adder network an adder in every layer.
MNIST is passed over 5 times and the digits 40 times. Seconds are of training alone, by the wall and
of the processor, which counts where others use the machine; seconds of compiling are beside them.

    python experiments/classics/baselines.py

It stops and goes on with `--resume`.
"""

import dataclasses
import functools
import importlib.metadata
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from matplotlib.figure import Figure

from nnlab import figures, runs, training, vision
from nnlab.arithmetics import ADDER, FLOAT
from nnlab.classics import layerwise
from nnlab.classics.perceptron import perceptron
from nnlab.classics.rbm import CD
from nnlab.errors import InputError, needs
from nnlab.figures.plots import COLOURS, STYLE
from nnlab.models import MLP, LeNet5
from nnlab.optim import adder_recipe, deep_recipe
from nnlab.runs.fields import DataDir, PositiveInt, Seed, SomeOf
from nnlab.runs.reading import read_run
from nnlab.runs.script import run

DATA = ("digits", "mnist")
BATCH = 128


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/baselines"
    data: Annotated[tuple[str, ...], SomeOf(DATA)] = DATA
    data_dir: DataDir = None
    train_images: vision.TrainImages = None
    svm_images: PositiveInt = 10_000
    """At most so many training images for the support vector machine, whose time is quadratic."""
    epochs: PositiveInt = 5
    """Passes over MNIST; the digits, which are few, are passed over eight times as often."""
    seed: Seed = 0


class Images(NamedTuple):
    """A data set: pixels from 0 to 1, [n, height, width, 1], and labels."""

    name: str
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


class Fit(NamedTuple):
    """A training.

    Attributes:
        images: it has seen.
        errors: of the test images in percent, after each epoch, or once.
        seconds, processor: until then, of training alone; those of all processors.
        compiling: seconds of the processor.
    """

    images: int
    errors: Sequence[float]
    seconds: Sequence[float]
    processor: Sequence[float]
    compiling: float = 0.0


def main(config: Config) -> None:
    with needs("data"):
        import sklearn  # noqa: F401
    names = ("scikit-learn", "scipy", "numpy")
    loaded = [images(name, config) for name in config.data]
    with config.open() as record:
        record.result({"versions of peers": {n: importlib.metadata.version(n) for n in names}})
        if record.folder.resume and (before := read_run(record.folder.path).result):
            record.contents = before | record.contents
        curves: dict[str, dict[str, Any]] = record.contents.get("curves", {})
        for data in loaded:
            fits = curves.setdefault(data.name, {})
            for name, learn in learners(config).items():
                if name not in fits:
                    fits[name] = learn(data)._asdict()
                    record.result({"curves": curves, "table": table(curves)})
            record.figure(figure(curves))
        figures.print_table(record.rows())


def images(name: str, config: Config) -> Images:
    found = vision.load(name, config.data_dir if name == "mnist" else None)
    train, test = ((s.images / np.float32(255), s.labels) for s in (found.train, found.test))
    count, there = config.train_images, len(train[1])
    if count is not None and count > there:
        raise InputError(f"--train-images must be at most the {there} of {name}, not {count}.")
    if count is not None and count < 10:  # ten batches, and more than one class
        raise InputError(f"--train-images must be at least 10, not {count}.")
    return Images(name, (train[0][:count], train[1][:count]), test)


def table(curves: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "data": data,
            "learner": name,
            "images": fit["images"],
            "test error / %": f"{fit['errors'][-1]:.2f}",
            "training / s": fit["seconds"][-1],
            "of processor / s": fit["processor"][-1],
            "compiling, of processor / s": fit["compiling"] or "",
        }
        for data, fits in curves.items()
        for name, fit in fits.items()
    ]


def learners(config: Config) -> dict[str, Callable[[Images], Fit]]:
    """Return what fits each learner to images, in the order of the table."""
    from sklearn import naive_bayes, svm, tree

    kinds = {"float": FLOAT, "adder": ADDER}
    return {
        "naive Bayes, Gaussian": by_sklearn(naive_bayes.GaussianNB()),
        "naive Bayes, multinomial": by_sklearn(naive_bayes.MultinomialNB()),
        "naive Bayes, Bernoulli": by_sklearn(naive_bayes.BernoulliNB(binarize=0.5)),
        "decision tree": by_sklearn(tree.DecisionTreeClassifier(random_state=config.seed)),
        "support vector machine": by_sklearn(svm.SVC(C=10), config.svm_images),
        "perceptrons, mean of weights": lambda data: by_perceptrons(data, config),
        **{
            f"MLP, {name}": lambda data, a=arithmetic: by_network(
                MLP(first=a, arithmetic=a, depth=2, width=256), deep_recipe, data, config
            )
            for name, arithmetic in kinds.items()
        },
        "deep belief network": lambda data: by_deep_belief(data, config),
        **{
            f"LeNet-5, {name}": lambda data, a=arithmetic: by_network(
                LeNet5(first=a, arithmetic=a, classifier=a), adder_recipe, padded(data), config
            )
            for name, arithmetic in kinds.items()
        },
    }


def flat(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(len(pixels), -1)


def padded(data: Images) -> Images:
    """Return images of 32×32: MNIST's with a border, the digits' pixels four times as large."""

    def larger(pixels: np.ndarray) -> np.ndarray:
        times = 32 // pixels.shape[1]
        pixels = pixels.repeat(times, 1).repeat(times, 2)
        border = (32 - pixels.shape[1]) // 2
        return np.pad(pixels, ((0, 0), (border, border), (border, border), (0, 0)))

    train, test = ((larger(pixels), labels) for pixels, labels in (data.train, data.test))
    return Images(data.name, train, test)


def now() -> np.ndarray:
    """Return seconds by the wall, and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def by_sklearn(machine: Any, most: int | None = None) -> Callable[[Images], Fit]:
    """Return the fit of one of scikit-learn's classifiers to the first images, at `most`."""

    def fit(data: Images) -> Fit:
        pixels, labels = (part[:most] for part in data.train)
        start = now()
        machine.fit(flat(pixels), labels)
        (seconds,), (processor,) = (now() - start)[:, None]
        error = wrong(machine.predict(flat(data.test[0])), data.test[1])
        return Fit(len(labels), [error], [seconds], [processor])

    return fit


def wrong(predicted: np.ndarray, labels: np.ndarray) -> float:
    return 100 * float(np.mean(predicted != labels))


def passes(data: Images, config: Config) -> int:
    return config.epochs * (8 if data.name == "digits" else 1)


def by_perceptrons(data: Images, config: Config) -> Fit:
    """Fit one perceptron a class, and decide by the mean of their weights over the epochs."""

    def bias(pixels: np.ndarray) -> np.ndarray:
        return np.concatenate([np.ones((len(pixels), 1), np.float32), flat(pixels)], axis=1)

    epochs, key = passes(data, config), jax.random.key(config.seed)
    signs = jnp.where(data.train[1] == np.arange(10)[:, None], 1, -1)

    def learn(x, signs):
        return jax.vmap(lambda one: perceptron(x, one, epochs, key=key).weights)(signs)

    x, start = jnp.asarray(bias(data.train[0])), now()
    compiled = jax.jit(learn).lower(x, signs).compile()
    compiling = (now() - start)[1]
    start = now()
    weights = np.asarray(compiled(x, signs)).transpose(1, 2, 0)  # [epochs, in, classes]
    seconds, processor = np.arange(1, epochs + 1) / epochs * (now() - start)[:, None]
    means = np.cumsum(weights, 0) / np.arange(1, epochs + 1)[:, None, None]
    test = bias(data.test[0])
    errors = [wrong(np.argmax(test @ mean, 1), data.test[1]) for mean in means]
    return Fit(len(x), errors, seconds.tolist(), processor.tolist(), compiling)


def by_deep_belief(data: Images, config: Config) -> Fit:
    """Pre-train layers of sigmoid units without labels, then train them all by the labels."""
    model = MLP(depth=2, width=256, norm=False, activation=jax.nn.sigmoid)
    key, x = jax.random.key(config.seed), jnp.asarray(flat(data.train[0]))
    epochs, widths = passes(data, config), [model.width] * model.depth
    times = [now()]
    for some in (1, epochs):  # the first time compiles
        options = {"epochs": some, "batch_size": min(100, len(x))}
        layers = jax.block_until_ready(layerwise.pretrain(key, x, widths, CD(1), **options))
        times.append(now())
    compiled, spent = np.diff(times, axis=0)
    params = layerwise.unroll(layers, model.init(key, x[:1])["params"])
    recipe = functools.partial(deep_recipe, learning_rate=3e-3)  # sigmoids have small gradients
    fit = by_network(model, recipe, data, config, params, spent)
    compiling = max(0.0, compiled[1] - spent[1] / epochs)
    return fit._replace(compiling=fit.compiling + compiling)


def by_network(
    model: nn.Module,
    recipe: Callable[[int], optax.GradientTransformation],
    data: Images,
    config: Config,
    params: Any = None,
    spent: np.ndarray | None = None,
) -> Fit:
    """Train a network; `params` start it, after seconds that were `spent` on them."""
    train = jax.tree.map(jnp.asarray, data.train)
    test = jax.tree.map(jnp.asarray, data.test)
    epochs, key = passes(data, config), jax.random.key(config.seed)
    batch = min(BATCH, len(train[0]) // 10)
    optimizer = recipe(epochs * training.steps_per_epoch(train, batch))
    state = training.init(key, model, optimizer, train[0])
    if params is not None:
        state = state._replace(params=params)
    evaluate = training.evaluation(model)
    renew = training.fresh_statistics(model, train[0], batch)
    start = now()
    step = training.train_step(model, optimizer)
    epoch = training.train_epoch(step, batch).lower(state, train).compile()
    compiling = (now() - start)[1]
    spent, errors, times = np.zeros(2) if spent is None else spent, [], []
    for _ in range(epochs):
        start = now()
        state = jax.block_until_ready(epoch(state, train)[0])
        spent = spent + now() - start
        times.append(spent)
        errors.append(100 * (1 - float(evaluate(renew(state), test)["accuracy"])))
    seconds, processor = np.transpose(times).tolist()
    return Fit(len(train[0]), errors, seconds, processor, compiling)


@matplotlib.rc_context(STYLE)
def figure(curves: dict[str, dict[str, Any]]) -> Figure:
    """Draw errors against seconds of the processor: lines over epochs, and their ends."""
    drawn = Figure(figsize=(11, 4.2))
    places = drawn.subplots(1, len(curves), squeeze=False)[0]
    for axes, (data, fits) in zip(places, curves.items(), strict=True):
        for number, (name, fit) in enumerate(fits.items()):
            colour, marker = COLOURS[number % len(COLOURS)], "os"[number // len(COLOURS)]
            seconds, errors = fit["processor"], fit["errors"]
            axes.plot(seconds, errors, color=colour, linewidth=0.9)
            axes.plot(seconds[-1], errors[-1], marker, color=colour, label=name, markersize=5)
        axes.set(title=data, xlabel="training / s of processor", xscale="log", yscale="log")
        axes.set_ylabel("test error / %")
    drawn.legend(*places[0].get_legend_handles_labels(), loc="outside right center")
    return drawn


if __name__ == "__main__":
    run(main, Config)
