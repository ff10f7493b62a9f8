"""Image classification sets that TensorFlow Datasets has prepared, read without TensorFlow.

TensorFlow is needed to download and prepare most of them. A set that is prepared as ArrayRecord or
Parquet files is read through `as_data_source`, in NumPy alone.

Reference:
    https://www.tensorflow.org/datasets/tfless_tfds
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnlab.data.locate import given_roots
from nnlab.errors import InputError, installing, needs
from nnlab.vision.datasets.dataset import Dataset, Split, checked_split
from nnlab.vision.pictures import Resize


def load_tfds(
    name: str, data_dir: str | os.PathLike | None = None, resize: Resize | None = None
) -> Dataset:
    """Read the splits `train` and `test`, or `validation` if there is no `test`.

    Args:
        name: `NAME[/CONFIG][:VERSION]`, as TensorFlow Datasets writes it.
        data_dir: the folder with prepared sets; by default `NNLAB_DATA_DIR`, then the default of
            TensorFlow Datasets (`TFDS_DATA_DIR` or `~/tensorflow_datasets`).
        resize: the size to bring images to; by default their own, which must be one.

    Returns:
        Images [height, width, channels] as they were prepared, or resized.

    Raises:
        InputError: the set is in none of these folders, or not in a format that can be read
            without TensorFlow, or it is not one uint8 image and one class an example, all
            images of one size unless they are resized.
    """
    builder = _find(name, data_dir)
    test = _test_split(builder)
    image, label = _feature_keys(builder)
    train_split, test_split = (
        _read(builder, s, image, label, name, resize) for s in ("train", test)
    )
    classes = builder.info.features[label]
    names = tuple(classes.names)
    return Dataset(f"tfds:{name}", train_split, test_split, classes.num_classes, names)


@dataclasses.dataclass(frozen=True)
class TfdsRecords:
    """Records of one prepared split; `nnlab.vision.datasets.dataset.Records` says what it does.

    Attributes:
        examples: the data source of TensorFlow Datasets, which opens its files where it is used.
        image, label: the keys of an example.
        shape: of every image, [height, width, channels].
        classes: labels are below it.
        place: the folder and the split, for errors.
        class_names: names of the classes.
        resize: how images get the shape, or None if they have it.
    """

    examples: Any
    image: str
    label: str
    shape: tuple[int, ...]
    classes: int
    place: str
    class_names: tuple[str, ...] = ()
    resize: Resize | None = None

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        images, labels = self.gather([index])
        return images[0], int(labels[0])

    def gather(self, indices: Sequence[int] | np.ndarray) -> Split:
        """Raises `InputError` where a record cannot be read or is unlike the others."""
        numbers = [int(i) for i in indices]
        try:
            examples = self.examples.__getitems__(numbers)
        except Exception as error:  # the readers and the decoders have no common base
            raise InputError(
                f"{self.place} cannot be read at records {numbers}: {_first_line(error)}"
            ) from error
        images = [_sized(example[self.image], self.resize) for example in examples]
        for number, image, example in zip(numbers, images, examples, strict=True):
            _check_shape(self.place, number, image.shape, self.shape)
            if not 0 <= example[self.label] < self.classes:
                raise InputError(
                    f"{self.place}: label {number} is {example[self.label]}, "
                    f"expected 0 to {self.classes - 1}"
                )
        labels = np.array([example[self.label] for example in examples], np.int32)
        return Split(np.stack(images), labels)


def tfds_records(
    name: str,
    data_dir: str | os.PathLike | None = None,
    split: str = "train",
    resize: Resize | None = None,
) -> TfdsRecords:
    """Open a split of a prepared set; all but its first record is checked when it is read.

    Args:
        name, data_dir, resize: as for `load_tfds`.
        split: `train`, or `test`, which is `validation` if there is no `test`.

    Raises:
        InputError: as for `load_tfds`.
    """
    builder = _find(name, data_dir)
    test = _test_split(builder)
    split = test if split == "test" else split
    image, label = _feature_keys(builder)
    place, examples = _open(builder, split, name)
    try:
        shape = _sized(examples[0][image], resize).shape
    except Exception as error:  # the readers and the decoders have no common base
        raise InputError(
            f"{place} cannot be read after 0 examples: {_first_line(error)}"
        ) from error
    classes = builder.info.features[label]
    names = tuple(classes.names)
    return TfdsRecords(examples, image, label, shape, classes.num_classes, place, names, resize)


def _find(name: str, data_dir: str | os.PathLike | None) -> Any:
    """Return the builder of the first folder that holds the set."""
    with needs("data"):
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core import constants, naming, read_only_builder

    try:
        naming.parse_builder_name_kwargs(name)
    except ValueError as error:
        raise InputError(
            f"tfds:{name} is not a data set's name, expected tfds:NAME[/CONFIG][:VERSION]"
        ) from error
    roots = given_roots(data_dir)
    if data_dir is None:
        roots = [*roots, constants.get_default_data_dir()]
    for root in roots:
        try:
            return read_only_builder.builder_from_files(name, data_dir=root)
        except tfds.core.DatasetNotFoundError:
            continue
        except Exception as error:  # the parsers of the metadata have no common base
            raise InputError(
                f"tfds:{name} in {root} cannot be read: {_first_line(error)}"
            ) from error
    raise InputError(
        f"tfds:{name} is prepared in none of {', '.join(map(str, roots))}; "
        f"prepare it with {installing('tensorflow')} and {_build_command(name)}"
    )


def _build_command(name: str) -> str:
    return f"tfds build {name} --file_format=array_record --data_dir=FOLDER"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _feature_keys(builder: Any) -> tuple[str, str]:
    """Return the keys of image and class that the set declares for supervised learning."""
    import tensorflow_datasets as tfds

    image, label = (builder.info.supervised_keys or ("image", "label"))[:2]
    features = dict(builder.info.features.items())
    if not (
        isinstance(features.get(image), tfds.features.Image)
        and isinstance(features.get(label), tfds.features.ClassLabel)
        and features[image].np_dtype == np.uint8
    ):
        raise InputError(
            f"{builder.data_dir} has the features {', '.join(map(repr, features.values()))}, "
            "expected an image of uint8 and a class label"
        )
    return image, label


def _test_split(builder: Any) -> str:
    """Return the name of the split to measure on; the set must have one and `train`."""
    splits = builder.info.splits
    test = "test" if "test" in splits else "validation"
    if not {"train", test} <= set(splits):
        raise InputError(
            f"{builder.data_dir} has the splits {', '.join(sorted(splits))}, "
            "expected train and one of test and validation"
        )
    return test


def _open(builder: Any, split: str, name: str) -> tuple[str, Any]:
    """Return the name of the split for errors, and its examples by number."""
    place = f"{builder.data_dir} {split}"
    if builder.info.splits[split].num_examples == 0:
        raise InputError(f"{place} holds no examples, expected at least one")
    try:
        return place, builder.as_data_source(split)
    except NotImplementedError as error:
        raise InputError(
            f"{builder.data_dir} is stored as {builder.info.file_format.value}, which only "
            f"TensorFlow reads; expected array_record, which {_build_command(name)} writes"
        ) from error
    except Exception as error:  # the readers have no common base
        raise InputError(
            f"{place} cannot be read after 0 examples: {_first_line(error)}"
        ) from error


def _check_shape(place: str, number: int, shape: tuple, first: tuple) -> None:
    if shape != first:
        raise InputError(
            f"{place}: image {number} has shape {shape} and image 0 {first}, "
            "expected images of one size; a size to bring them to (--image-size) lets them differ"
        )


def _sized(image: np.ndarray, resize: Resize | None) -> np.ndarray:
    return image if resize is None else resize(image)


def _read(
    builder: Any, split: str, image: str, label: str, name: str, resize: Resize | None
) -> Split:
    """Read all examples of one split, in the order of the files."""
    place, examples = _open(builder, split, name)
    n = builder.info.splits[split].num_examples
    images, labels = np.empty((n, 0, 0, 0), np.uint8), np.empty(n, np.int64)
    i = 0
    try:
        for i, example in enumerate(examples):
            pixels = _sized(example[image], resize)
            if i == 0:
                images = np.empty((n, *pixels.shape), np.uint8)
            _check_shape(place, i, pixels.shape, images.shape[1:])
            images[i], labels[i] = pixels, example[label]
    except InputError:
        raise
    except Exception as error:  # the readers and the decoders have no common base
        reason = _first_line(error)
        raise InputError(f"{place} cannot be read after {i} examples: {reason}") from error
    return checked_split(images, labels, builder.info.features[label].num_classes, place)
