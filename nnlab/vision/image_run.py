"""What every script that trains on images can be asked for, and the data that it then gets.

    @dataclasses.dataclass(frozen=True)
    class Config(vision.ImageRun):
        out: str = "runs/my_question"
        dataset: vision.ImageSet = "cifar10"
        epochs: PositiveInt = 10

    def main(config: Config) -> None:
        images = config.images()
        with config.open(notes=images.notes) as record:
            fit(…, images.feed(config.batch_size), images.test, folder=record.folder)

The notes say how images are prepared and what the classes are called; `nnlab.runs.fit` writes them
into the file of the network, from which `nnlab predict` reads them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import Doc

from nnlab.data import Stream
from nnlab.errors import InputError
from nnlab.runs.fields import DataDir, PositiveInt, Share
from nnlab.runs.run import Run
from nnlab.training.feeds import Feed, in_memory, streamed
from nnlab.vision.datasets.dataset import Dataset, Records, Split, check_arrays
from nnlab.vision.datasets.folder import TEST_SHARE
from nnlab.vision.datasets.sources import load, record_source
from nnlab.vision.pictures import Fit, Resize
from nnlab.vision.preparation import Preparation
from nnlab.vision.transforms import channel_statistics, margins, record_statistics

LARGE = 2 * 2**30  # bytes of float32 images from which on they are rather streamed
_SAMPLE = 5000  # pictures that mean and deviation of a stream are taken from

Arrays = tuple[jax.Array, jax.Array]
ImageSet = Annotated[
    str, Doc("digits, mnist, fashion_mnist, cifar10, svhn, tfds:NAME or folder:PATH.")
]
TrainImages = Annotated[
    PositiveInt | None,
    Doc("Train on so many images, drawn at random, for a quick look; by default on all."),
]


@dataclasses.dataclass(frozen=True)
class Images:
    """A data set, ready for training.

    Attributes:
        name: of the data set.
        test: images as the network takes them, float32 [n, height, width, channels], and labels.
        class_names: one a class, numbers where they have no names.
        preparation: what made these images of the stored ones.
        arrays: training images and labels, or None if they are streamed.
        records: the stored training images, if they are streamed.
    """

    name: str
    test: Arrays
    class_names: tuple[str, ...]
    preparation: Preparation
    arrays: Arrays | None = None
    records: Records | None = None

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def train(self) -> Arrays:
        """Training images, as those of `test`, and labels.

        Raises:
            InputError: they are streamed.
        """
        if self.arrays is None:
            raise InputError(f"the images of {self.name} are streamed, expected them in memory.")
        return self.arrays

    @property
    def notes(self) -> dict[str, Any]:
        """What a network's file says of its images: "classes" and "images", for `nnlab predict`."""
        return {"classes": list(self.class_names), "images": self.preparation.as_notes()}

    def feed(self, batch_size: int, seed: int = 0, workers: int = 0) -> Feed:
        """Return the training images for `nnlab.runs.fit`.

        Args:
            batch_size: images a step.
            seed, workers: of the stream, if they are streamed (`nnlab.data.Stream`).

        Raises:
            InputError: the batch is larger than the data, or as for `Stream`.
        """
        if self.records is None:
            return in_memory(self.train, batch_size)
        return streamed(self.stream(batch_size, seed, workers))

    def stream(self, batch_size: int, seed: int = 0, workers: int = 0) -> Stream:
        """Return the training images as a stream of batches, as the network takes them.

        Raises:
            InputError: they are in memory, or as for `Stream`.
        """
        if self.records is None:
            raise InputError(f"the images of {self.name} are in memory, expected them streamed.")
        transform = self.preparation.on_host
        return Stream(self.records, batch_size, seed, workers, transform)


def prepared(
    dataset: Dataset,
    *,
    train_images: int | None = None,
    border: tuple[int, int] | None = None,
    border_first: bool = False,
    colour: bool = False,
    fit: Fit = "crop",
    statistics: tuple[np.ndarray, np.ndarray] | None = None,
) -> Images:
    """Return a data set ready for training, with what its user must know to do the same.

    Args:
        dataset: from `nnlab.vision.load`.
        train_images: so many training images, drawn at random by a fixed seed; by default all.
        border, border_first: as in `Preparation`.
        colour: give grey images three channels.
        fit: how the images got their size, and how others will.
        statistics: mean and standard deviation of each channel, [channels] in [0, 1], such as those
            of borrowed weights; by default of the training images, a black border included.

    Raises:
        InputError: there are fewer training images than asked for, or they are not as
            `channel_statistics` and `check_arrays` expect.
    """
    train = dataset.train
    if train_images is not None:
        drawn = _drawn(len(train.labels), train_images)
        train = Split(train.images[drawn], train.labels[drawn])
    measured = train.images
    if border is not None and border_first:
        measured = np.pad(measured, margins(measured.shape, *border))
    mean, std = channel_statistics(measured) if statistics is None else statistics
    height, width, channels = train.images.shape[1:]
    channels = 3 if colour else channels
    mean, std = (tuple(np.broadcast_to(each, channels).tolist()) for each in (mean, std))
    how = Preparation(height, width, channels, mean, std, fit, border, border_first)
    arrays, test = (_arrays(how, split, dataset.classes) for split in (train, dataset.test))
    return Images(dataset.name, test, _names(dataset), how, arrays)


def _arrays(how: Preparation, split: Split, classes: int) -> Arrays:
    images, labels = how(split.images), jnp.asarray(split.labels)
    check_arrays(images, labels, classes)
    return images, labels


def _names(data: Dataset | Records) -> tuple[str, ...]:
    return data.class_names or tuple(map(str, range(data.classes)))


def _drawn(images: int, wanted: int) -> np.ndarray:
    if wanted > images:
        raise InputError(f"--train-images must be at most the {images} there are, not {wanted}.")
    return np.sort(np.random.default_rng(0).permutation(images)[:wanted])


@dataclasses.dataclass(frozen=True)
class _Some:
    """Some of the records of another source."""

    source: Records
    chosen: np.ndarray

    @property
    def classes(self) -> int:
        return self.source.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.source[int(self.chosen[index])]

    def gather(self, indices: Sequence[int] | np.ndarray) -> Split:
        return self.source.gather(self.chosen[np.asarray(indices)])


@dataclasses.dataclass(frozen=True)
class ImageRun(Run):
    """A run that trains on images.

    Raises:
        InputError: as for `Run`.
    """

    dataset: ImageSet = "mnist"
    data_dir: DataDir = None
    train_images: TrainImages = None
    image_size: PositiveInt | None = None
    """Height and width that images are brought to; by default they keep their own."""
    image_fit: Fit = "crop"
    """How images get that size: cut off what is over, stretch, or fill up with black."""
    test_share: Share = TEST_SHARE
    """Part of the pictures of folder:PATH to test on, unless it has a folder for these."""

    @property
    def resize(self) -> Resize | None:
        """How images get another size, if they do."""
        size = self.image_size
        return None if size is None else Resize(size, size, self.image_fit)

    def images(self, *, stream: bool | None = False, **options: Any) -> Images:
        """Return the data that the command line describes.

        Args:
            stream: read training images from disk when they are needed; None does so where their
                records can be read one by one and would take more than `LARGE` bytes in memory.
            options: `border`, `border_first`, `colour` and `statistics` of `prepared`.

        Raises:
            InputError: as for `nnlab.vision.load`, `nnlab.vision.record_source` and `prepared`.
        """
        if self.test_share != TEST_SHARE and not self.dataset.startswith("folder:"):
            raise InputError(f"--test-share is for folder:PATH, not for {self.dataset}.")
        where: Any = {"resize": self.resize, "test_share": self.test_share}
        if stream is None:
            stream = self.dataset.startswith(("folder:", "tfds:")) and self._large(where)
        if not stream:
            dataset = load(self.dataset, self.data_dir, **where)
            fit = self.image_fit
            return prepared(dataset, train_images=self.train_images, fit=fit, **options)
        train, test = (
            record_source(self.dataset, self.data_dir, each, **where) for each in ("train", "test")
        )
        if self.train_images is not None:
            train = _Some(train, _drawn(len(train), self.train_images))
        measured = train
        if self.resize is not None and len(train) > _SAMPLE:
            measured = _Some(train, _drawn(len(train), _SAMPLE))
        statistics = options.pop("statistics", None)
        if statistics is None:
            statistics = record_statistics(measured)
        held_out = test.gather(range(len(test)))
        whole = Dataset(self.dataset, held_out, held_out, test.classes, _names(test))
        images = prepared(whole, fit=self.image_fit, statistics=statistics, **options)
        return dataclasses.replace(images, arrays=None, records=train)

    def _large(self, where: Any) -> bool:
        records = record_source(self.dataset, self.data_dir, **where)
        return 4 * len(records) * int(np.prod(records[0][0].shape)) > LARGE
