"""Trained networks by name: what the committed results trained.

    network = pretrained("digits_adder")
    logits = network.logits(network.preparation(images))  # uint8 [n, 8, 8, 1]

`PRETRAINED` is the table of them. A row says which committed result a network belongs to, its
accuracy there, the command that trains it, and the SHA-256 of its file; model, arithmetic, names of
classes and preparation of images are in the file itself. Small files come with the package, in the
folder `weights`; the others are made by their command.

To add one, run the command of its script from a clone, copy the network's file into `weights` under
its name if it has less than 300 kB, and add a row.
"""

import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nnlab.errors import InputError
from nnlab.files import container
from nnlab.models.classifiers import Classifier, load_classifier
from nnlab.paths import reading, user_path

WEIGHTS = Path(__file__).parent / "weights"
TOLERANCE = 1.0  # percentage points


class Training(NamedTuple):
    """A run of an experiment whose result is committed.

    Attributes:
        script: of the experiment, in a clone.
        options: its command line; `DIR` is the folder of the data.
        dataset: what it trained and tested on.
        name: of the committed result, if it is not that of the script.
        before: the run whose networks it goes on with.
    """

    script: str
    options: str
    dataset: str
    name: str | None = None
    before: "Training | None" = None

    @property
    def command(self) -> str:
        """What makes the folder of the run."""
        command = f"python {self.script} {self.options}".rstrip()
        return f"{self.before.command} && {command}" if self.before else command

    @property
    def out(self) -> str:
        """The folder of the run."""
        return f"runs/{Path(self.script).stem}"

    @property
    def result(self) -> Path:
        """The committed result, in a clone."""
        script = Path(self.script)
        return script.parent / "results" / f"{self.name or script.stem}.json"


class Weights(NamedTuple):
    """A network that a committed result trained.

    Attributes:
        name: what `pretrained` calls it.
        about: what it is.
        accuracy: percent of all test images, to two decimals, as in the committed result.
        training: what made it.
        row: the columns of the result that tell its row from others.
        file: its file in the folder of the run.
        sha256: digest of its file, hexadecimal, or None if the file is not published.
        size: bytes of its file, or None likewise.
    """

    name: str
    about: str
    accuracy: float
    training: Training
    row: Mapping[str, Any]
    file: str
    sha256: str | None = None
    size: int | None = None

    @property
    def ships(self) -> bool:
        """Whether its file comes with the package."""
        return self.path.is_file()

    @property
    def path(self) -> Path:
        """Its file in the package, if it ships."""
        return WEIGHTS / f"{self.name}.safetensors"


def pretrained(name: str, path: str | os.PathLike[str] | None = None) -> Classifier:
    """Return a network that a committed result trained, ready to use.

    Args:
        name: of `PRETRAINED`.
        path: the folder of a run of its command, or the network's file from there; needed where
            the file does not come with the package.

    Returns:
        Its `logits`, `preparation` and `class_names`; and `saved`, the model with its variables, or
        `integers`, the network of `nnlab.deployment`.

    Raises:
        InputError: there is no such name; it needs a path; the file is not the one of the table,
            nor, of a run of one's own, one about as accurate.
    """
    return load_classifier(pretrained_file(name, path))


def pretrained_file(name: str, path: str | os.PathLike[str] | None = None) -> Path:
    """Return the file of a network of `PRETRAINED`, after a look at whether it is that.

    A file is that of the table if its SHA-256 is. But trainings are repeated to the bit on one
    machine by one version of nnlab and JAX only, so a file of a run of one's own will do if it
    says, as those of `nnlab.runs.fit` do, that it is at most a point less accurate.

    Args:
        name, path: as for `pretrained`.

    Raises:
        InputError: as for `pretrained`.
    """
    if name not in PRETRAINED:
        raise InputError(f"there is no trained {name!r}; expected one of {', '.join(PRETRAINED)}.")
    found = PRETRAINED[name]
    if path is None:
        if not found.ships:
            raise InputError(
                f"{name} does not come with nnlab; expected the folder {found.training.out} that"
                f" `{found.training.command}` makes."
            )
        if _digest(found.path) != found.sha256:
            raise InputError(f"{found.path} is not as it was published; expected another nnlab.")
        return found.path
    path = user_path(path)
    with reading(path):
        path = path / found.file if path.is_dir() else path
        if not path.is_file():
            raise InputError(
                f"there is no file {path}; expected the folder that `{found.training.command}`"
                " makes."
            )
    if _digest(path) == found.sha256:
        return path
    notes = container.read(path).about.get("notes") or {}
    trained, score, wanted = notes.get("network"), notes.get("score"), Path(found.file).stem
    percent = 100 * score if isinstance(score, float) else math.nan
    if trained == wanted and percent >= found.accuracy - TOLERANCE:
        return path
    says = f"is of {trained} with {percent:.2f} %" if trained else "does not say what it is"
    raise InputError(
        f"{path} has another SHA-256 than {name} and {says}; expected {wanted} with about"
        f" {found.accuracy:.2f} %."
    )


def _digest(path: Path) -> str:
    with reading(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()


_DIGITS = Training("experiments/adder_vs_cnn.py", "", "digits")
_MNIST = Training(
    "experiments/adder/adder_mnist_ablation.py",
    "--cells full-adaptive --data-dir DIR",
    "mnist",
    "adder_mnist_weights",
)
_LENET5 = Training(
    "experiments/deployment/deploy_adder.py", "--networks lenet5 --mnist-dir DIR", "mnist"
)
_CIFAR10 = Training(
    "experiments/adder/adder_cifar10.py", "--data-dir DIR --epochs 12 --batch-size 128", "cifar10"
)
_RESNET20 = Training(
    "experiments/deployment/deploy_adder.py",
    "--networks resnet20 --arithmetics AdderNet --cifar-dir DIR --trained runs/adder_cifar10",
    "cifar10",
    "deploy_adder_weights",
    _CIFAR10,
)

_RESNET20_BNN = Training(
    "experiments/deployment/deploy_adder.py",
    "--networks resnet20 --arithmetics BNN --cifar-dir DIR --trained runs/adder_cifar10",
    "cifar10",
    "deploy_bnn_weights",
    _CIFAR10,
)

PRETRAINED = {
    row.name: row
    for row in (
        Weights(
            "digits_cnn",
            "SmallCNN, float",
            100.0,
            _DIGITS,
            {"network": "CNN"},
            "networks/CNN.safetensors",
            "86d247188968061c16b893248cce9d9e777db9812dc903ca03d5b4753dece0e2",
            109_552,
        ),
        Weights(
            "digits_adder",
            "SmallCNN, adder layers",
            99.72,
            _DIGITS,
            {"network": "AdderNet"},
            "networks/AdderNet.safetensors",
            "bdf3048d458a8c9c7aebc80638cf826b10cdeff9d58d6708889c7718767851a5",
            109_672,
        ),
        Weights(
            "digits_bnn",
            "SmallCNN, signs",
            98.33,
            _DIGITS,
            {"network": "BNN"},
            "networks/BNN.safetensors",
            "6abe0138444475d578bbbce3a36d1b056b9543025b8285a4908dbaa3dbd01b7d",
            10_680,
        ),
        Weights(
            "lenet5_cnn",
            "LeNet-5, float",
            99.43,
            _LENET5,
            {"network": "lenet5", "variant": "CNN float32"},
            "networks/lenet5_CNN.safetensors",
            "7e3f944010bd2b74598726c72f9ff9218e48d46d1d7901d32ed38ba50ca2af6e",
            255_272,
        ),
        Weights(
            "lenet5_adder",
            "LeNet-5, all layers adders",
            99.41,
            _MNIST,
            {"cell": "full-adaptive", "seed": 0},
            "networks/full-adaptive_seed0.safetensors",
            "754e3ce8298e099f63fd22f97970c51d4d903a4a759a2dc472414ebf5f98398e",
            256_096,
        ),
        Weights(
            "lenet5_adder_int4",
            "LeNet-5, adder layers in integers of 4 bits",
            99.32,
            _LENET5,
            {"network": "lenet5", "variant": "AdderNet int4"},
            "networks/lenet5/AdderNet_int4.safetensors",
            "64ea6216f909fa63607ba37cb28e83f9fd3cb2eef9670843f1882f1b59d7e106",
            34_215,
        ),
        Weights(
            "resnet20_cnn",
            "ResNet-20, float",
            87.34,
            _CIFAR10,
            {"network": "CNN"},
            "networks/CNN.safetensors",
        ),
        Weights(
            "resnet20_adder",
            "ResNet-20, adder layers",
            84.12,
            _CIFAR10,
            {"network": "AdderNet"},
            "networks/AdderNet.safetensors",
        ),
        Weights(
            "resnet20_adder_int4",
            "ResNet-20, adder layers in integers of 4 bits",
            83.26,
            _RESNET20,
            {"network": "resnet20", "variant": "AdderNet int4"},
            "networks/resnet20/AdderNet_int4.safetensors",
            "83c43f5c86dae65fccea68c2952e420e8d9beba5e7d7146974c9ffb31a49d34c",
            173_200,
        ),
        Weights(
            "resnet20_bnn_packed",
            "ResNet-20, signs in packed bits",
            57.93,
            _RESNET20_BNN,
            {"network": "resnet20", "variant": "BNN packed"},
            "networks/resnet20/BNN_packed.safetensors",
            "84f902ca168e9ec5ed45102ca7778bc1e51f63536e2aa38c1151bc1c4794da29",
            91_848,
        ),
    )
}
