r"""What does a CIFAR ResNet with borrowed weights lose in int8?

Answer: Hardly anything: the AdderNet ResNet-20 that its authors published has 91.82 % in float32
here (91.8 as published) and 91.71 % in integers of 8 bits; Idelbayev's ResNet-20 91.73 % (91.73)
and 91.69 %.

A file of PyTorch weights is borrowed, the network runs on all test images of CIFAR-10 in float32,
and `deployment.quantize` makes it an integer network, calibrated on training images. `--source`
says whose code trained the weights, which decides what layers are called, how images were
normalised, and what the network is: Idelbayev's pytorch_resnet_cifar10 (option A, constants of
ImageNet), Chen's pytorch-cifar-models (option B), or AdderNet's code (its ResNet-20: adders, and
BatchNorm after the classifier).

No published weights belong to this repository, and the script downloads none: Idelbayev's are in
the folder `pretrained_models` of his repository, AdderNet's ResNet-20 is in the history of its
authors'. Without `--weights` the script trains the network, writes its weights as a state dict and
borrows that: 2 epochs of 20,000 images, seed 0.

    python experiments/deployment/borrowed_weights.py --data-dir DIR --weights resnet20-12fca82f.th
    python experiments/deployment/borrowed_weights.py --data-dir DIR --source addernet \
        --weights ResNet20-AdderNet.pth
    python experiments/deployment/borrowed_weights.py --data-dir DIR --network he_resnet56 \
        --weights resnet56-4bfd9763.th
    python experiments/deployment/borrowed_weights.py --data-dir DIR
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnlab import deployment, figures, files, models, runs, training, vision
from nnlab.arithmetics import ADDER
from nnlab.errors import needs
from nnlab.models import CifarResNet
from nnlab.optim import adder_recipe
from nnlab.runs.fields import Positive, PositiveInt, Seed
from nnlab.runs.run_folder import RunFolder
from nnlab.runs.script import run
from nnlab.training.evaluation import in_batches
from nnlab.vision.cifar_resnet import torch_names
from nnlab.vision.datasets import cifar


class Source(NamedTuple):
    """What published code says of its networks: their options, names, and images."""

    options: dict[str, Any]
    like: Literal["idelbayev", "torchvision"]
    mean: tuple[float, float, float] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, float, float] = (0.2023, 0.1994, 0.2010)


SOURCES = {
    "idelbayev": Source({}, "idelbayev", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "chen": Source({"projection": True}, "torchvision"),
    "addernet": Source(
        {"projection": True, "normalize_logits": True, "arithmetic": ADDER}, "torchvision"
    ),
}


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/borrowed_weights"
    weights: str | None = None
    """State dict in a .pt, .pth, .th or .safetensors file; by default the network is trained
    here."""
    network: Literal["he_resnet20", "he_resnet32", "he_resnet44", "he_resnet56", "he_resnet110"] = (
        "he_resnet20"
    )
    source: Literal["idelbayev", "chen", "addernet"] = "idelbayev"
    """Whose code trained the weights; `addernet` makes the layers inside adders."""
    data_dir: str | None = None
    """Folder with the CIFAR-10 files; by default they are found or downloaded."""
    epochs: PositiveInt = 2
    """Epochs of a training here."""
    train_images: PositiveInt = 20_000
    """Training images of a training here."""
    batch_size: PositiveInt = 128
    learning_rate: Positive = 0.1
    """Peak learning rate of SGD (cosine decay)."""
    calibration_images: PositiveInt = 512
    """Training images that the ranges of activations are measured on."""
    seed: Seed = 0


def main(config: Config) -> None:
    source = SOURCES[config.source]
    prepare = preparation(source)
    model = getattr(models, config.network)(**source.options)
    data, names = vision.load("cifar10", config.data_dir), torch_names(model, source.like)
    images, labels = prepare(data.test.images), data.test.labels
    notes = {"classes": list(data.class_names), "images": prepare.as_notes()}
    shapes = jax.eval_shape(model.init, jax.random.key(0), images[:1])

    def borrowed(path: str | Path) -> Any:
        return files.borrow(shapes, files.read_state_dict(path), names)

    given = borrowed(config.weights) if config.weights else None  # before there is a folder
    with config.open(notes=notes) as record:
        variables = given or borrowed(trained_here(model, data, config, record.folder))
        calibration = prepare(data.train.images[: config.calibration_images])
        integers = deployment.quantize(model, variables, calibration)
        path = record.folder.path / "int8.safetensors"
        deployment.save_network(path, integers, about=notes, overwrite=True)
        sizes = sum(leaf.nbytes for leaf in jax.tree.leaves(variables)), path.stat().st_size
        applies = functools.partial(model.apply, variables), deployment.run(integers)
        decided = [classes(apply, images) for apply in applies]
        weights = f"{config.source}'s" if config.weights else "trained here"
        for kind, size, found in zip(("float32", "int8"), sizes, decided, strict=True):
            row = {"network": config.network, "weights": weights, "numbers": kind}
            row |= {"test accuracy / %": percent(found == labels), "bytes": size}
            record.row(row | {"decided as in float32 / %": percent(found == decided[0])})
        record.result({"minutes": record.minutes})
        figures.print_table(record.rows())


def classes(apply: Callable[[jax.Array], jax.Array], images: jax.Array) -> np.ndarray:
    logits = jax.jit(functools.partial(in_batches, apply, batch_size=500))(images)
    return np.argmax(logits, axis=1)


def percent(right: np.ndarray) -> float:
    return round(100 * float(right.mean()), 2)


def preparation(source: Source) -> vision.Preparation:
    """Return what makes images as the network was trained on them."""
    return vision.Preparation(cifar.HEIGHT, cifar.WIDTH, cifar.CHANNELS, source.mean, source.std)


def trained_here(
    model: CifarResNet, data: vision.Dataset, config: Config, folder: RunFolder
) -> Path:
    """Train the network, and write its weights under PyTorch's names."""
    with needs("files"):
        from safetensors.numpy import save_file

    source = SOURCES[config.source]
    train, test = (
        (preparation(source)(split.images[:most]), jnp.asarray(split.labels[:most]))
        for split, most in ((data.train, config.train_images), (data.test, None))
    )
    steps = config.epochs * training.steps_per_epoch(train, config.batch_size)
    optimizer = adder_recipe(steps, config.learning_rate)
    state = training.init(jax.random.key(config.seed), model, optimizer, train[0])
    state = runs.fit(
        config.network,
        state,
        training.train_step(model, optimizer, augment=vision.random_crop_and_flip),
        training.evaluation(model),
        training.in_memory(train, config.batch_size),
        test,
        epochs=config.epochs,
        folder=folder,
        statistics=None,  # the committed results are by running averages
    ).last
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    path = folder.path / "weights.safetensors"
    save_file(files.lend(variables, torch_names(model, source.like)), path)
    return path


if __name__ == "__main__":
    run(main, Config)
