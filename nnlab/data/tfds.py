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
    splits = builder.info.splits
    test = "test" if "test" in splits else "validation"
    if not {"train", test} <= set(splits):
        raise InputError(
            f"{builder.data_dir} has the splits {', '.join(sorted(splits))}, "
            "expected train and one of test and validation"
        )
    image, label = _feature_keys(builder)
    try:
        train_split, test_split = (_read(builder, s, image, label) for s in ("train", test))
    except NotImplementedError as error:
        raise InputError(
            f"{builder.data_dir} is stored as {builder.info.file_format.value}, which only "
            f"TensorFlow reads; expected array_record, which {_build_command(name)} writes"
        ) from error
    classes = builder.info.features[label].num_classes
    return Dataset(f"tfds:{name}", train_split, test_split, classes)


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
        except Exception as error:  # the parsers of the metadata have no common base
            raise InputError(
                f"tfds:{name} in {root} cannot be read: {_first_line(error)}"
            ) from error
    raise InputError(
        f"tfds:{name} is prepared in none of {', '.join(map(str, roots))}; "
        f"prepare it with pip install nnlab[tensorflow] and {_build_command(name)}"
    )


def _build_command(name: str) -> str:
    return f"tfds build {name} --file_format=array_record --data_dir=FOLDER"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _feature_keys(builder: Any) -> tuple[str, str]:
    """The keys of the image and of its class, as the set declares them for supervised learning."""
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


def _read(builder: Any, split: str, image: str, label: str) -> Split:
    """All examples of one split, in the order of the files."""
    place = f"{builder.data_dir} {split}"
    n = builder.info.splits[split].num_examples
    if n == 0:
        raise InputError(f"{place} holds no examples, expected at least one")
    images, labels = np.empty((n, 0, 0, 0), np.uint8), np.empty(n, np.int64)
    i = 0
    try:
        for i, example in enumerate(builder.as_data_source(split)):
            if i == 0:
                images = np.empty((n, *example[image].shape), np.uint8)
            if example[image].shape != images.shape[1:]:
                raise InputError(
                    f"{place}: image {i} has shape {example[image].shape} and image 0 "
                    f"{images.shape[1:]}, expected images of one size"
                )
            images[i], labels[i] = example[image], example[label]
    except (InputError, NotImplementedError):
        raise
    except Exception as error:  # the readers and the decoders have no common base
        reason = _first_line(error)
        raise InputError(f"{place} cannot be read after {i} examples: {reason}") from error
    return checked_split(images, labels, builder.info.features[label].num_classes, place)
