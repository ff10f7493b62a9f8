"""Can a few pictures a class be told apart by weights that others have trained?

Answer: Not measured here, where the published weights could not be had. The recipe is tested on
generated pictures: the last layer learns, and all other parameters keep their borrowed bits.

The recipe of every tutorial: a ResNet with the published weights of torchvision, a new last layer
for the classes of a folder of pictures, and all other layers frozen (BatchNorm's statistics follow
the pictures). Pictures are brought to the size that the weights have seen, standardised by the
statistics of ImageNet, and mirrored at random; Adam trains the last layer under a cosine.

Weights are a state dict, `.pth` or `.safetensors`, with the names of torchvision's ResNets, such as
its resnet18-f37072fd.pth. `--train all` trains all layers from there, at a lower learning rate.
Large folders are streamed; `--workers` are the processes that read.

    python experiments/images/fine_tune.py --dataset folder:flowers --weights resnet18-f37072fd.pth
    nnlab predict runs/fine_tune daisy.jpg
"""

import dataclasses
import re
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnlab import figures, models, runs, training, vision
from nnlab.errors import InputError
from nnlab.figures.plots import Curve, figure_curves
from nnlab.files import borrow, read_state_dict
from nnlab.optim import freeze
from nnlab.runs.fields import Count, OneOf, Positive, PositiveInt, Seed
from nnlab.runs.script import run
from nnlab.vision.resnet import torch_names

NETWORKS: dict[str, Any] = {
    name: getattr(models, name)
    for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
}
# Mean and standard deviation of ImageNet's pixels, which the weights have been trained with.
IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
LAST = re.compile("fc/").match


@dataclasses.dataclass(frozen=True)
class Config(vision.ImageRun):
    out: str = "runs/fine_tune"
    weights: str = ""
    """File with the state dict of the network: .pth, .pt or .safetensors."""
    network: Annotated[str, OneOf(NETWORKS)] = "resnet18"
    """resnet18, resnet34, resnet50, resnet101 or resnet152."""
    dataset: vision.ImageSet = "tfds:oxford_flowers102"
    image_size: PositiveInt = 224
    """Height and width that images are brought to."""
    train: Literal["last", "all"] = "last"
    """Layers to train; all others are frozen."""
    mirror: bool = True
    """Mirror half of the images in each step; not for letters and digits."""
    crops: bool = False
    """Train on random parts of 8 to 100 % of each image, brought to its size."""
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 32
    learning_rate: Positive | None = None
    """Peak learning rate of Adam (cosine decay); by default 1e-3 for the last layer, 1e-4 for all
    layers."""
    workers: Count = 0
    """Processes that read the pictures of a large folder; with 0 a thread reads."""
    seed: Seed = 0


def main(config: Config) -> None:
    borrowed = borrowed_weights(config)  # raises before any picture is read
    images = config.images(stream=None, statistics=IMAGENET, colour=True)
    feed = images.feed(config.batch_size, config.seed, config.workers)
    model = NETWORKS[config.network](classes=images.classes)
    rate = config.learning_rate or (1e-3 if config.train == "last" else 1e-4)
    steps = config.epochs * feed.steps_per_epoch
    schedule = optax.cosine_decay_schedule(rate, steps)
    optimizer = optax.adam(schedule)
    if config.train == "last":
        optimizer = freeze(optimizer, lambda path: not LAST(path))
    state = training.init(jax.random.key(config.seed), model, optimizer, images.test[0])
    state = training.transfer(borrowed, state, optimizer, replace=LAST)
    with config.open("workers", notes=images.notes) as record:
        augment = [vision.random_flip] * config.mirror
        augment += [vision.random_resized_crop] * config.crops
        trained = runs.fit(
            config.network,
            state,
            training.train_step(
                model,
                optimizer,
                augment=vision.chain(*augment) if augment else None,
                gradient_norm=config.gradient_norm,
            ),
            training.evaluation(model, batch_size=100),
            feed,
            images.test,
            epochs=config.epochs,
            folder=record.folder,
            learning_rate=schedule,
            **config.protocol(images),
        )
        history = trained.history
        row = {"network": config.network, "trained": config.train, "classes": images.classes}
        row |= {"test accuracy / %": round(100 * trained.tested.metrics["accuracy"], 2)}
        record.row(row | {"seconds / epoch": round(float(np.median(history["seconds"])), 2)})
        record.result({"history": history})
        record.figure(figure_curves([Curve(config.network, history)]))
        figures.print_table(record.rows())
        vision.write_image_report(record, images, table=record.rows())
        print(f"nnlab predict {record.folder.path} PICTURE")


def borrowed_weights(config: Config) -> Any:
    """Return the variables of the network as it was published, its own last layer included."""
    if not config.weights:
        raise InputError(
            f"--weights must be a file with the state dict of {config.network}, not left out;"
            " torchvision publishes one, such as resnet18-f37072fd.pth."
        )
    arrays = read_state_dict(config.weights)
    if "fc.weight" not in arrays:
        raise InputError(f"{config.weights} lacks fc.weight, expected the weights of a ResNet.")
    model = NETWORKS[config.network](classes=len(arrays["fc.weight"]))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    try:
        return borrow(shapes, arrays, torch_names(model))
    except InputError as error:
        raise InputError(f"{config.weights} does not fit {config.network}: {error}") from error


if __name__ == "__main__":
    run(main, Config)
