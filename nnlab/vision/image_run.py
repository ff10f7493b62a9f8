"""What every script that trains on images can be asked for, and the data that it then gets.

    @dataclasses.dataclass(frozen=True)
    class Config(vision.ImageRun):
        out: str = "runs/my_question"
        dataset: vision.ImageSet = "cifar10"
        epochs: PositiveInt = 10

    def main(config: Config) -> None:
        images = config.images()
        with config.open(notes=images.notes) as record:
            feed = images.feed(config.batch_size)
            fit(…, feed, images.test, folder=record.folder, **config.protocol(images))
            vision.write_image_report(record, images)

The notes say how images are prepared and what the classes are called; `nnlab.runs.fit` writes them
into the file of the network, from which `nnlab predict` reads them.
"""

from __future__ import annotations  # so that help() shows the names of types

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import Doc

from nnlab.data import Stream
from nnlab.data.holding_out import GatheredSubset, drawn, labels_of
from nnlab.errors import InputError, check_count
from nnlab.runs.fields import Count, DataDir, PositiveInt, Share
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
        validation: images set aside to choose by, as those of `test`; None without them.
        test_files: those that the images of `test` came from; empty where they have none.
    """

    name: str
    test: Arrays
    class_names: tuple[str, ...]
    preparation: Preparation
    arrays: Arrays | None = None
    records: Records | None = None
    validation: Arrays | None = None
    test_files: tuple[str, ...] = ()

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
    def counts(self) -> dict[str, list[int] | int]:
        """Images of each class by split; in all where streamed ones do not tell their classes."""
        stored = getattr(self.records, "labels", None)
        labels: dict[str, Any] = {"train": stored if self.arrays is None else self.arrays[1]}
        if self.validation is not None:
            labels["validation"] = self.validation[1]
        counts: dict[str, list[int] | int] = {}
        for split, found in (labels | {"test": self.test[1]}).items():
            if found is None and self.records is not None:
                counts[split] = len(self.records)
            else:
                counts[split] = np.bincount(np.asarray(found), minlength=self.classes).tolist()
        return counts

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
    validation: float | None = None,
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
        validation: the share of these to set aside, the same of each class (`nnlab.data.hold_out`);
            by default none.
        border, border_first: as in `Preparation`.
        colour: give grey images three channels.
        fit: how the images got their size, and how others will.
        statistics: mean and standard deviation of each channel, [channels] in [0, 1], such as those
            of borrowed weights; by default of the training images, a black border included.

    Raises:
        InputError: there are fewer training images than asked for, none are left to validate on, or
            they are not as `channel_statistics` and `check_arrays` expect.
    """
    train = dataset.train
    if train_images is not None:
        some = _at_random(len(train.labels), train_images)
        train = Split(train.images[some], train.labels[some])
    held: Split | None = None
    if validation is not None:
        train, held = (
            Split(train.images[part], train.labels[part])
            for part in drawn(len(train.labels), train.labels, validation)
        )
    measured = train.images
    if border is not None and border_first:
        measured = np.pad(measured, margins(measured.shape, *border))
    mean, std = channel_statistics(measured) if statistics is None else statistics
    height, width, channels = train.images.shape[1:]
    channels = 3 if colour else channels
    mean, std = (tuple(np.broadcast_to(each, channels).tolist()) for each in (mean, std))
    how = Preparation(height, width, channels, mean, std, fit, border, border_first)
    arrays, test = (_arrays(how, split, dataset.classes) for split in (train, dataset.test))
    chooses = None if held is None else _arrays(how, held, dataset.classes)
    names, files = _names(dataset), dataset.test_files
    return Images(dataset.name, test, names, how, arrays, validation=chooses, test_files=files)


def _arrays(how: Preparation, split: Split, classes: int) -> Arrays:
    images, labels = how(split.images), jnp.asarray(split.labels)
    check_arrays(images, labels, classes)
    return images, labels


def _names(data: Dataset | Records) -> tuple[str, ...]:
    return data.class_names or tuple(map(str, range(data.classes)))


def _at_random(images: int, wanted: int) -> np.ndarray:
    if wanted > images:
        raise InputError(f"--train-images must be at most the {images} there are, not {wanted}.")
    return np.sort(np.random.default_rng(0).permutation(images)[:wanted])


class _Some(GatheredSubset):
    """Some of the records of another source, and what that knows of its classes."""

    @property
    def labels(self) -> np.ndarray:
        return np.asarray(self.source.labels)[self.chosen]

    @property
    def classes(self) -> int:
        return self.source.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names


@dataclasses.dataclass(frozen=True)
class ImageRun(Run):
    """A run that trains on images: out, overwrite and resume of `Run`, and these fields.

    Attributes:
        dataset: digits, mnist, fashion_mnist, cifar10, svhn, tfds:NAME or folder:PATH.
        data_dir: Folder with the data set's files; by default they are found or downloaded.
        train_images: Train on so many images, drawn at random, for a quick look; by default on all.
        image_size: Height and width that images are brought to; by default they keep their own.
        image_fit: How images get that size: cut off what is over, stretch, or fill up with black.
        test_share: Part of the pictures of folder:PATH to test on, unless it has a folder for
            these.
        skip_unreadable: Leave out files of folder:PATH that are no pictures, and say so, where they
            would end the run.
        validation: Part of the training images to set aside: they choose the best epoch, and the
            test images are measured once, with that. By default none, and the network is that of
            the last epoch.
        patience: Stop once more epochs than this in a row have not improved; the network is then
            the best.
        running_statistics: Evaluate networks of adders on BatchNorm's averages over past steps,
            which lag, instead of statistics taken anew.
        gradient_norm: Record the norm of the gradient; training keeps its bits.

    Raises:
        InputError: as for `Run`.
    """

    dataset: ImageSet = "mnist"
    data_dir: DataDir = None
    train_images: TrainImages = None
    image_size: PositiveInt | None = None
    image_fit: Fit = "crop"
    test_share: Share = TEST_SHARE
    skip_unreadable: bool = False
    validation: Share | None = None
    patience: Count | None = None
    running_statistics: bool = False
    gradient_norm: bool = False

    @property
    def resize(self) -> Resize | None:
        """How images get another size, if they do."""
        size = self.image_size
        if size is not None:
            check_count("image_size", size)  # a script may have declared it anew
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
        if self.skip_unreadable and not self.dataset.startswith("folder:"):
            raise InputError(f"--skip-unreadable is for folder:PATH, not for {self.dataset}.")
        where: Any = {"resize": self.resize, "test_share": self.test_share}
        where["skip_unreadable"] = self.skip_unreadable
        if stream is None:
            stream = self.dataset.startswith(("folder:", "tfds:")) and self._large(where)
        if not stream:
            dataset = load(self.dataset, self.data_dir, **where)
            options |= {"train_images": self.train_images, "validation": self.validation}
            return prepared(dataset, fit=self.image_fit, **options)
        train, test = (
            record_source(self.dataset, self.data_dir, each, **where) for each in ("train", "test")
        )
        if self.train_images is not None:
            train = _Some(train, _at_random(len(train), self.train_images))
        held: Records | None = None
        if self.validation is not None:
            parts = drawn(len(train), labels_of(train), self.validation)
            train, held = (_Some(train, part) for part in parts)
        measured = train
        if self.resize is not None and len(train) > _SAMPLE:
            measured = _Some(train, _at_random(len(train), _SAMPLE))
        statistics = options.pop("statistics", None)
        if statistics is None:
            statistics = record_statistics(measured)
        tested = test.gather(range(len(test)))
        chooses = tested if held is None else held.gather(range(len(held)))
        files = getattr(test, "files", ())
        whole = Dataset(self.dataset, chooses, tested, test.classes, _names(test), files)
        images = prepared(whole, fit=self.image_fit, statistics=statistics, **options)
        validation = None if held is None else images.arrays
        return dataclasses.replace(images, arrays=None, records=train, validation=validation)

    def protocol(self, images: Images) -> dict[str, Any]:
        """Return the options of `nnlab.runs.fit` that the command line describes."""
        options = {"validation": images.validation, "patience": self.patience}
        return options | ({"statistics": None} if self.running_statistics else {})

    def _large(self, where: Any) -> bool:
        records = record_source(self.dataset, self.data_dir, **where)
        return 4 * len(records) * int(np.prod(records[0][0].shape)) > LARGE
