"""Can networks that do not multiply learn to draw, and what does each arithmetic do to the game?

Answer: They can, so far on small digits: after 550 updates adders in all inner layers of both come
to an FID of 7.2 where float layers come to 5.5 and real images to 1.9, one seed. MNIST, and the
games with a Wasserstein and a hinge loss, are not measured yet.

Known: no figure of a generator of adders is published. A DCGAN of this size in PyTorch came, in a
trial of ours, to an FID of 34 in the features of another LeNet-5 after 1.6 passes over MNIST.

A generator makes images of 32×32 pixels from 64 numbers, a critic tells them from those of the data
set (28×28 are padded with black). Games, each a row: `dcgan` (non-saturating loss, BatchNorm in
both), `wgan-gp` (Wasserstein loss with gradient penalty, five updates of the critic for one of the
generator, layer normalisation in the critic where its arithmetic needs one), and `hinge` (spectral
norm in a float critic, layer normalisation in any other, whose slope it cannot bound usefully). In
`GAME-ARITHMETIC` all layers of both but the first and the last are of that arithmetic, in
`GAME-ARITHMETIC-generator` and `-critic` those of one. Every game has as many updates of the
generator. Doublings are sub-pixel convolutions (`nnlab.vision.generation.upsampling`).

FID and KID compare 10,000 images with the test images in the features of a classifier: on MNIST and
on the small digits those of the network that comes with nnlab, otherwise of a LeNet-5 that the
script trains first. "floor" is what as many training images get. FID is of the features as they
are, and "standardised" of features of variance 1, which another classifier does not scale. Each
arithmetic has Adam at one rate; weights of adders, which start at a size of 1, have `--adder-rate`.

The 1,797 digits of 8×8 pixels that come with the install are drawn at 16×16 and measured at 8×8, as
many as there are training images, against 360 test images, so the floor is high
(`results/images_from_noise_digits.json`, `.png`; two cores of an AMD EPYC, shared with other work,
which the seconds show: 500 updates take 3 seconds of processor time in either arithmetic).

It stops and goes on with `--resume`, which also adds games and epochs.

    python experiments/gan/images_from_noise.py --data-dir DIR
    python experiments/gan/images_from_noise.py --dataset digits --epochs 25 \\
        --learning-rate 1e-3 --features 16 --latents 32 --every 110 --samples 1437 \\
        --games dcgan dcgan-adder
"""

import dataclasses
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from matplotlib.figure import Figure

from nnlab import figures, models, runs, training, vision
from nnlab.arithmetics import FLOAT, NAMED, Arithmetic
from nnlab.errors import DivergedError
from nnlab.figures.plots import COLOURS, STYLE
from nnlab.optim.recipes import labels
from nnlab.runs.fields import DataDir, Positive, PositiveInt, Seed, SomeOf
from nnlab.runs.reading import read_run
from nnlab.runs.script import run
from nnlab.training.adversarial import HINGE, NON_SATURATING, WASSERSTEIN, AdversarialLoss
from nnlab.training.two_player import Players, generate, init_players, two_player_step
from nnlab.vision.generation import measures
from nnlab.vision.generation.dcgan import DCGANCritic, DCGANGenerator, published_start
from nnlab.vision.generation.upsampling import twice
from nnlab.vision.transforms import margins

CURVE = 2000  # images of a point of the curve


@dataclasses.dataclass(frozen=True)
class Game:
    """A loss, what the critic normalises by, and how often it moves for a move of the generator."""

    loss: AdversarialLoss
    betas: tuple[float, float]
    normalization: Any
    otherwise: Any  # of critics whose arithmetic needs a normalisation
    critic_steps: int = 1
    penalty: float = 0.0


GAMES = {
    "dcgan": Game(NON_SATURATING, (0.5, 0.999), "batch", "batch"),
    "wgan-gp": Game(WASSERSTEIN, (0.0, 0.9), "none", "layer", critic_steps=5, penalty=10.0),
    "hinge": Game(HINGE, (0.5, 0.999), "spectral", "layer"),
}
PLAYED = ("dcgan", "dcgan-adder", "dcgan-adder-generator", "dcgan-adder-critic")
PLAYED += ("wgan-gp", "wgan-gp-adder", "hinge", "hinge-adder")
NAMES = (
    *GAMES,
    *(f"{g}-{a}{p}" for g in GAMES for a in NAMED for p in ("", "-generator", "-critic")),
)


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/images_from_noise"
    data_dir: DataDir = None
    dataset: Literal["digits", "mnist", "fashion_mnist", "cifar10"] = "mnist"
    games: Annotated[tuple[str, ...], SomeOf(NAMES)] = PLAYED
    """GAME or GAME-ARITHMETIC, and -generator or -critic where it is that of one alone."""
    images: PositiveInt | None = None
    """Train on the first so many images; by default on all."""
    epochs: PositiveInt = 2
    """Passes over the training images, each counted as often as the critic moves."""
    batch_size: PositiveInt = 64
    features: PositiveInt = 32
    """Channels of the widest layer."""
    latents: PositiveInt = 64
    learning_rate: Positive = 2e-4
    adder_rate: Positive = 5e-3
    """Learning rate of the weights of adders."""
    samples: PositiveInt = 10_000
    """Images that are made and measured."""
    every: PositiveInt = 450
    """Updates of the generator from one point of the curve to the next."""
    conditional: bool = False
    """Tell both networks the class."""
    seed: Seed = 0


def main(config: Config) -> None:
    data = vision.load(config.dataset, config.data_dir)
    train = data.train._replace(images=data.train.images[: config.images])
    arrays = as_pixels(train.images), jnp.asarray(train.labels[: config.images])
    for name in config.games:  # before the folder is made
        training.steps_per_epoch(arrays, config.batch_size * arithmetics_of(name)[0].critic_steps)
    reason = {"every": "the curve has points at these steps"}
    with config.open("epochs", "games", reasons=reason) as record:
        if record.folder.resume and (found := read_run(record.folder.path).result):
            record.contents = found | record.contents
        ruler = Ruler(config, data, record)
        for name in config.games:
            play(name, config, arrays, as_pixels(data.test.images), data, ruler, record)
        kept = {name: np.load(sheet(record, name)) for name in all_games(record)}
        record.figure(figure(kept, record.rows("curve")), dpi=110)
        figures.print_table(record.rows())


def as_pixels(images: np.ndarray) -> jax.Array:
    """Return stored images as a generator makes them: float32 in [-1, 1], 32×32, or 16×16."""
    pixels = vision.to_float(images) * 2 - 1
    if images.shape[1] == 8:
        return twice(pixels)
    return jnp.pad(pixels, margins(images.shape, 32, 32), constant_values=-1)


def stored(images: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return generated images as those of the data set are stored, of that shape."""
    if shape[1] == 8:
        inner = nn.avg_pool(images, (2, 2), (2, 2))
    else:
        rows, columns = ((images.shape[1] - side) // 2 for side in shape[1:3])
        inner = images[:, rows : rows + shape[1], columns : columns + shape[2]]
    return jnp.rint((inner + 1) * 127.5).clip(0, 255).astype(jnp.uint8)


class Ruler:
    """Distances in the features of a classifier, and what real training images get."""

    def __init__(self, config: Config, data: vision.Dataset, record: runs.Record):
        network = feature_network(config, data, record)
        self._apply = jax.jit(network)
        self._shape = data.test.images.shape
        self._test = self.of_stored(data.test.images)
        real = self.of_stored(data.train.images[: config.samples])
        if "floor" not in record.contents:
            trace = float(np.trace(measures.statistics(self._test).covariance))
            record.result({"floor": self.scores(real) | {"variance of all features": trace}})

    def of_stored(self, images: Any) -> np.ndarray:
        batches = (images[i : i + 500] for i in range(0, len(images), 500))
        return measures.features_of(self._apply, batches)

    def of_generated(self, images: jax.Array) -> np.ndarray:
        return self.of_stored(stored(images, self._shape))

    def scores(self, features: np.ndarray) -> dict[str, float]:
        test, fake = measures.standardised(self._test, features)
        return {
            "FID": measures.fid(self._test, features),
            "standardised FID": measures.fid(test, fake),
            "standardised KID": measures.kid(test, fake),
        }

    def fid(self, features: np.ndarray) -> float:
        return measures.fid(self._test, features)


def feature_network(config: Config, data: vision.Dataset, record: runs.Record):
    """Return a function from stored images to the last features of a classifier."""
    if config.dataset in (own := {"mnist": "lenet5_cnn", "digits": "digits_cnn"}):
        found = models.pretrained(own[config.dataset])
        assert found.saved is not None
        model, variables, prepare = found.saved.model, found.saved.variables, found.preparation
    else:
        model = models.LeNet5(classes=data.classes)
        mean, std = vision.channel_statistics(data.train.images)
        height, width, channels = data.train.images.shape[1:]
        border = None if height == 32 else (32, 32)
        statistics = tuple(mean), tuple(std)
        prepare = vision.Preparation(height, width, channels, *statistics, border=border)
        train, test = ((prepare(each.images), each.labels) for each in (data.train, data.test))
        optimizer = optax.adam(1e-3)
        state = training.init(jax.random.key(config.seed), model, optimizer, train[0])
        step = training.train_step(model, optimizer)
        trained = runs.fit(
            "features",
            state,
            step,
            training.evaluation(model),
            training.in_memory(train, 128),
            test,
            epochs=5,
            folder=record.folder,
        )
        record.result({"features": {"accuracy": trained.history["test_accuracy"][-1]}})
        variables = {"params": trained.last.params, "batch_stats": trained.last.batch_stats}

    def features(images: Any) -> jax.Array:
        found: Any = model.apply(variables, prepare(images), mutable=["intermediates"])
        return found[1]["intermediates"]["features"][0]

    return features


def arithmetics_of(name: str) -> tuple[Game, Arithmetic, Arithmetic]:
    """Return the game of a name, and the arithmetics of generator and critic."""
    game = next(each for each in GAMES if name == each or name.startswith(f"{each}-"))
    rest = name.removeprefix(game).removeprefix("-")
    alone = rest.rpartition("-")[2] if rest.endswith(("-generator", "-critic")) else ""
    arithmetic = NAMED[rest.removesuffix(f"-{alone}") or "float"]
    return (
        GAMES[game],
        FLOAT if alone == "critic" else arithmetic,
        FLOAT if alone == "generator" else arithmetic,
    )


def play(name: str, config: Config, train, test, data, ruler: Ruler, record: runs.Record) -> None:
    """Train a pair of networks, measure what the generator makes, and add a row."""
    game, ours, theirs = arithmetics_of(name)
    passes = config.epochs * game.critic_steps
    if any((row["game"], row["passes"]) == (name, passes) for row in record.rows()):
        return
    classes = data.classes if config.conditional else None
    _, size, _, channels = train[0].shape
    generator = DCGANGenerator(size, channels, config.features, classes, ours)
    normalization = game.otherwise if theirs.needs_norm else game.normalization
    critic = DCGANCritic(config.features, classes, theirs, normalization=normalization)
    optimizers = (optimizer(config, game.betas), optimizer(config, game.betas))
    key = jax.random.key(config.seed)
    latents = jax.random.normal(key, (config.samples, config.latents))
    asked = jnp.arange(config.samples) % data.classes

    def given(inputs: jax.Array, chosen: jax.Array) -> Any:
        return (inputs, chosen) if config.conditional else inputs

    players: Any = begun(
        key,
        generator,
        critic,
        optimizers,
        given(latents[:2], asked[:2]),
        given(train[0][:2], train[1][:2]),
    )
    options: Any = dict(critic_steps=game.critic_steps, penalty=game.penalty)
    step: Any = two_player_step(
        generator,
        critic,
        optimizers,
        game.loss,
        latents=config.latents,
        conditional=config.conditional,
        **options,
    )

    @jax.jit
    def make(state, inputs):
        return generate(generator, state, inputs)

    def judge(state: Any, batch: Any) -> dict[str, jax.Array]:
        """The critic's loss and its logit for real images that it has not seen."""
        images, chosen = batch
        fake = generate(generator, state.generator, given(latents[: len(images)], chosen))
        told = [generate(critic, state.critic, given(x, chosen)) for x in (images, fake)]
        return {"loss": game.loss.critic(*told), "real": told[0].mean()}

    def watch(moment: runs.Moment) -> None:
        few = min(CURVE, config.samples)
        state: Any = moment.state
        images = make(state.generator, given(latents[:few], asked[:few]))
        point = {"game": name, "updates": moment.step, "FID": ruler.fid(ruler.of_generated(images))}
        point |= {key: moment.figures[key] for key in ("loss", "generator_loss", "real", "fake")}
        earlier = [
            each
            for each in record.rows("curve")
            if (each["game"], each["updates"]) != (name, moment.step)
        ]
        record.result({"curve": [*earlier, point]})

    row: dict[str, Any] = {"game": name, "passes": passes}
    try:
        trained = runs.fit(
            name,
            players,
            step,
            judge,
            training.in_memory(train, config.batch_size * game.critic_steps),
            (test[:1000], data.test.labels[:1000]),
            epochs=passes,
            folder=record.folder,
            score=runs.least_loss,
            diagnose=False,
            statistics=None,
            on_step=watch,
            step_interval=config.every,
            keep=1,
        )
    except DivergedError as error:
        record.row(row | {"ended": str(error).partition(";")[0]})
        return
    state: Any = trained.last
    images = make(state.generator, given(latents, asked))
    ends = jnp.linspace(0, 1, 12)[:, None]
    between = latents[0] * jnp.cos(ends * jnp.pi / 2) + latents[1] * jnp.sin(ends * jnp.pi / 2)
    path = make(state.generator, given(between, jnp.zeros(12, jnp.int32)))
    np.save(sheet(record, name), np.asarray(jnp.concatenate([images[:48], path])))
    row |= {"updates of the generator": int(state.generator.step)}
    row |= ruler.scores(ruler.of_generated(images))
    row["seconds"] = round(sum(trained.history["seconds"]), 1)
    record.result({"table": [each for each in record.rows() if each["game"] != name] + [row]})


def begun(key, generator, critic, optimizers, latents, images) -> Players:
    """Return both before the first step, with float weights as DCGAN's start."""
    players = init_players(key, generator, critic, optimizers, latents, images)
    keys = jax.random.split(jax.random.fold_in(key, 2))
    params = [published_start(k, p) for k, p in zip(keys, players.params.values(), strict=True)]
    return Players(*(state._replace(params=p) for state, p in zip(players, params, strict=True)))


def optimizer(config: Config, betas: tuple[float, float]) -> optax.GradientTransformation:
    """Return Adam, with a rate of its own for the weights of adders."""
    slow, fast = (optax.adam(rate, *betas) for rate in (config.learning_rate, config.adder_rate))

    def kinds(params: Any) -> Any:
        return jax.tree.map(lambda kind: "fast" if kind == "adder" else "slow", labels(params))

    return optax.partition({"slow": slow, "fast": fast}, kinds)


def sheet(record: runs.Record, name: str):
    """Return the file of the images of a game."""
    return record.folder.path / f"{name}.npy"


def all_games(record: runs.Record) -> list[str]:
    return [row["game"] for row in record.rows() if sheet(record, row["game"]).is_file()]


@matplotlib.rc_context(STYLE)
def figure(kept: dict[str, np.ndarray], curve: list[dict[str, Any]]) -> Figure:
    """Draw samples and an interpolation of each game, and FID by updates of the generator."""
    rows = len(kept) + 1
    drawn = Figure(figsize=(9, 2.2 + 2.2 * rows), layout="constrained")
    places: Any = drawn.subplots(rows, 1, squeeze=False)[:, 0]
    for axes, (name, images) in zip(places[1:], kept.items(), strict=True):
        lines = (images + 1) / 2
        side = lines.shape[1]
        tiled = lines.reshape(5, 12, *lines.shape[1:]).swapaxes(1, 2)
        tiled = tiled.reshape(5 * side, 12 * side, -1)
        axes.imshow(tiled.squeeze(), "gray", vmin=0, vmax=1)
        axes.axhline(4 * side - 0.5, color="white", linewidth=2)
        axes.set(xticks=[], yticks=[], title=f"{name}; below, from one image to another")
        axes.grid(False)
    for colour, name in zip(COLOURS, dict.fromkeys(p["game"] for p in curve), strict=False):
        points = sorted((p["updates"], p["FID"]) for p in curve if p["game"] == name)
        places[0].plot(*zip(*points, strict=True), "o-", ms=3, color=colour, label=name)
    places[0].set(yscale="log", xlabel="updates of the generator", ylabel="FID")
    places[0].legend()
    return drawn


if __name__ == "__main__":
    run(main, Config)
