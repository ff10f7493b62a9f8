"""Image classification sets that TensorFlow Datasets has prepared, read without TensorFlow.

TensorFlow is needed to download and prepare most of them. A set that is prepared as ArrayRecord or
Parquet files is read through `as_data_source`, in NumPy alone.

Reference:
    https://www.tensorflow.org/datasets/tfless_tfds
"""

import os
from typing import Any

import numpy as np

from nnlab.data.dataset import Dataset, Split, checked_split
from nnlab.data.locate import given_roots
from nnlab.errors import InputError


def load_tfds(name: str, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Reads the splits `train` and `test`, or `validation` where there is no `test`.

    Args:
        name: `NAME[/CONFIG][:VERSION]`, as TensorFlow Datasets writes it.
        data_dir: looked in first, then `NNLAB_DATA_DIR`, then the default of TensorFlow Datasets
            (`TFDS_DATA_DIR` or `~/tensorflow_datasets`).

    Returns:
        Images [height, width, channels] as they were prepared.

    Raises:
        InputError: the set is in none of these folders, or not in a format that can be read
            without TensorFlow, or it is not one uint8 image and one class an example, all
            images of one size.
    """
    builder = _find(name, data_dir)
    place = builder.data_dir
    image, label = _feature_keys(builder.info, place)
    try:
        sources = builder.as_data_source()
    except (NotImplementedError, ValueError) as error:
        raise InputError(
            f"{place} is stored as {builder.info.file_format.value}, which only TensorFlow reads; "
            f"expected array_record, which {_build_command(name)} writes"
        ) from error
    test = "test" if "test" in sources else "validation"
    missing = {"train", test} - set(sources)
    if missing:
        raise InputError(
            f"{place} has the splits {', '.join(sorted(sources))}, "
            "expected train and one of test and validation"
        )
    classes = builder.info.features[label].num_classes
    return Dataset(
        f"tfds:{name}",
        _read(sources["train"], image, label, classes, f"{place} train"),
        _read(sources[test], image, label, classes, f"{place} {test}"),
        classes,
    )


def _find(name: str, data_dir: str | os.PathLike | None) -> Any:
    """The builder of the first folder that holds the set."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import constants, naming, read_only_builder

    try:
        naming.parse_builder_name_kwargs(name)
    except ValueError as error:
        raise InputError(
            f"tfds:{name} is not a data set's name, expected tfds:NAME[/CONFIG][:VERSION]"
        ) from error
    roots = [*given_roots(data_dir), constants.get_default_data_dir()]
    for root in roots:
        try:
            return read_only_builder.builder_from_files(name, data_dir=root)
        except tfds.core.DatasetNotFoundError:
            continue
    raise InputError(
        f"tfds:{name} is prepared in none of {', '.join(map(str, roots))}; "
        f"prepare it with pip install nnlab[tensorflow] and {_build_command(name)}"
    )


def _build_command(name: str) -> str:
    return f"tfds build {name} --file_format=array_record --data_dir=FOLDER"


def _feature_keys(info: Any, place: os.PathLike) -> tuple[str, str]:
    """The keys of the image and of its class, as the set declares them for supervised learning."""
    import tensorflow_datasets as tfds

    image, label = (info.supervised_keys or ("image", "label"))[:2]
    features = dict(info.features.items())
    if not (
        isinstance(features.get(image), tfds.features.Image)
        and isinstance(features.get(label), tfds.features.ClassLabel)
        and features[image].np_dtype == np.uint8
    ):
        raise InputError(
            f"{place} has the features {', '.join(map(repr, features.values()))}, "
            "expected an image of uint8 and a class label"
        )
    return image, label


def _read(source: Any, image: str, label: str, classes: int, place: str) -> Split:
    n = len(source)
    images, labels = np.empty((n, 0, 0, 0), np.uint8), np.empty(n, np.int64)
    for i in range(n):
        try:
            example = source[i]
        except Exception as error:  # what the readers and the decoders raise has no common base
            raise InputError(f"{place}: example {i} cannot be read: {error}") from error
        if i == 0:
            images = np.empty((n, *example[image].shape), np.uint8)
        if example[image].shape != images.shape[1:]:
            raise InputError(
                f"{place}: image {i} has shape {example[image].shape} and image 0 "
                f"{images.shape[1:]}, expected images of one size"
            )
        images[i], labels[i] = example[image], example[label]
    return checked_split(images, labels, classes, place)
