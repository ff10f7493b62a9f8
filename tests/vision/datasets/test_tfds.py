"""Sets in the format of TensorFlow Datasets, written and read without TensorFlow."""

import io
import pickle
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from nnlab.errors import InputError
from nnlab.vision import Resize, load, record_source

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (7, 5, 4, 3), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0])
FEATURES = {
    "image": tfds.features.Image(shape=(None, None, 3)),
    "label": tfds.features.ClassLabel(num_classes=3),
}


def png(image):
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()


def prepare(root, splits, name="toy", version="1.0.0", features=None, suffix="array_record"):
    """Writes `{split: [example]}` as `tfds build` does; images are arrays."""
    folder = root / name / version
    folder.mkdir(parents=True)
    kinds = tfds.features.FeaturesDict(features or FEATURES)
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=name.split("/")[0], filetype_suffix=suffix
    )
    infos = []
    for split, examples in splits.items():
        path = f"{folder}/{name.split('/')[0]}-{split}.{suffix}-00000-of-00001"
        if suffix == "array_record":
            writer = ArrayRecordWriter(path, "group_size:1")
            for example in examples:
                encoded = {k: png(v) if np.ndim(v) else v for k, v in example.items()}
                writer.write(kinds.serialize_example(kinds.encode_example(encoded)))
            writer.close()
        else:
            (folder / path).write_bytes(b"")
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(examples)],
                num_bytes=0,
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=kinds, split_infos=infos, check_data=False
    )
    return folder


def examples(images=IMAGES, labels=LABELS):
    labels = labels[: len(images)]
    return [{"image": i, "label": int(c)} for i, c in zip(images, labels, strict=True)]


SPLITS = {"train": examples(), "test": examples(IMAGES[:2])}


def refuses(message, name="tfds:toy", data_dir=None):
    with pytest.raises(InputError, match=message):
        load(name, data_dir)


@pytest.mark.parametrize(
    ("prepared", "name"),
    [
        (("toy", "1.0.0"), "tfds:toy"),
        (("toy", "1.0.0"), "tfds:toy:1.0.0"),
        (("toy/small", "2.1.0"), "tfds:toy/small"),
        (("toy/small", "2.1.0"), "tfds:toy/small:2.*.*"),
        (("mnist", "3.0.1"), "tfds:mnist"),  # one whose builder exists
    ],
)
def test_reads_names_with_config_and_version(tmp_path, prepared, name):
    prepare(tmp_path, SPLITS, *prepared)
    data = load(name, tmp_path)
    assert (data.name, data.classes) == (name, 3)
    assert data.train.images.dtype == np.uint8 and data.train.labels.dtype == np.int32
    np.testing.assert_array_equal(data.train.images, IMAGES)
    np.testing.assert_array_equal(data.train.labels, LABELS)
    np.testing.assert_array_equal(data.test.images, IMAGES[:2])
    np.testing.assert_array_equal(data.test.labels, LABELS[:2])
    assert "tensorflow" not in sys.modules


def test_looks_in_the_folder_given_then_the_environment_then_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("NNLAB_DATA_DIR", str(tmp_path / "environment"))
    for count, root in enumerate(("tfds", "environment", "given"), start=1):
        split = examples(IMAGES[:count])
        prepare(tmp_path / root, {"train": split, "test": split})
        given = tmp_path / "given" if root == "given" else None  # then no other is looked into
        assert len(load("tfds:toy", given).train.labels) == count


def test_validation_stands_in_for_test(tmp_path):
    prepare(tmp_path, {"train": SPLITS["train"], "validation": SPLITS["test"]})
    assert len(load("tfds:toy", tmp_path).test.labels) == 2


def test_grey_images(tmp_path):
    features = FEATURES | {"image": tfds.features.Image(shape=(5, 4, 1))}
    prepare(tmp_path, {s: examples(IMAGES[..., :1]) for s in SPLITS}, features=features)
    np.testing.assert_array_equal(load("tfds:toy", tmp_path).test.images, IMAGES[..., :1])


def test_not_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("NNLAB_DATA_DIR", str(tmp_path / "environment"))
    refuses(
        f"^tfds:cifar10 is prepared in none of {tmp_path}/environment, "
        rf"{tmp_path}/tfds; prepare it with pip install .*\[tensorflow\]' and "
        "tfds build cifar10 --file_format=array_record --data_dir=FOLDER$",
        "tfds:cifar10",
    )
    with pytest.raises(InputError, match=f"^tfds:cifar10 is prepared in none of {tmp_path}/given;"):
        load("tfds:cifar10", tmp_path / "given")


@pytest.mark.parametrize("name", ["", "a/b/c!", "no spaces"])
def test_not_a_name(name):
    refuses(
        rf"^tfds:{name} is not a data set's name, expected tfds:NAME\[/CONFIG\]\[:VERSION\]$",
        f"tfds:{name}",
    )


def test_images_of_several_sizes(tmp_path):
    folder = prepare(
        tmp_path, SPLITS | {"train": examples(IMAGES[:6]) + examples(IMAGES[6:, 1:], LABELS[6:])}
    )
    refuses(
        rf"^{folder} train: image 6 has shape \(4, 4, 3\) and image 0 \(5, 4, 3\), "
        "expected images of one size; a size to bring them to",
        data_dir=tmp_path,
    )
    for read in (load("tfds:toy", tmp_path, resize=Resize(3, 6)).train, sized_records(tmp_path)):
        assert read.images.shape == (len(IMAGES), 3, 6, 3)
        np.testing.assert_array_equal(read.images[0], Resize(3, 6)(IMAGES[0]))


def sized_records(root):
    records = record_source("tfds:toy", root, resize=Resize(3, 6))
    return records.gather(range(len(records)))


def test_no_test_split(tmp_path):
    folder = prepare(tmp_path, {"train": SPLITS["train"], "extra": SPLITS["test"]})
    refuses(
        f"^{folder} has the splits extra, train, expected train and one of test and validation$",
        data_dir=tmp_path,
    )


def test_unlabelled_test_split(tmp_path):
    folder = prepare(tmp_path, SPLITS | {"test": examples(labels=LABELS - 1)})
    refuses(f"^{folder} test: label 0 is -1, expected 0 to 2$", data_dir=tmp_path)


def test_empty_split(tmp_path):
    folder = prepare(tmp_path, SPLITS | {"test": []})
    refuses(f"^{folder} test holds no examples, expected at least one$", data_dir=tmp_path)


def test_tfrecord(tmp_path):
    folder = prepare(tmp_path, SPLITS, suffix="tfrecord")
    refuses(
        f"^{folder} is stored as tfrecord, which only TensorFlow reads; expected array_record, "
        "which tfds build toy --file_format=array_record --data_dir=FOLDER writes$",
        data_dir=tmp_path,
    )


@pytest.mark.parametrize(
    "features",
    [
        {"label": FEATURES["label"]},
        FEATURES | {"label": tfds.features.Scalar(dtype=np.int64)},
        FEATURES | {"image": tfds.features.Tensor(shape=(5, 4, 3), dtype=np.uint8)},
        FEATURES | {"image": tfds.features.Image(shape=(5, 4, 3), dtype=np.uint16)},
    ],
    ids=["no image", "a number", "a tensor", "16 bits"],
)
def test_not_image_classification(tmp_path, features):
    folder = prepare(tmp_path, {"train": [], "test": []}, features=features)
    refuses(
        f"^{folder} has the features .*, expected an image of uint8 and a class label$",
        data_dir=tmp_path,
    )


@pytest.mark.parametrize("damage", ["truncated", "missing", "zeros"])
def test_damaged_files(tmp_path, damage):
    folder = prepare(tmp_path, SPLITS)
    (path,) = folder.glob("toy-train*")
    if damage == "missing":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(bytes(len(data)) if damage == "zeros" else data[: len(data) // 2])
    refuses(f"^{folder} train cannot be read after 0 examples: ", data_dir=tmp_path)


@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
def test_damaged_metadata(tmp_path, file):
    folder = prepare(tmp_path, SPLITS)
    (folder / file).write_text("{")
    refuses(f"^tfds:toy in {tmp_path} cannot be read: ", data_dir=tmp_path)


@pytest.mark.parametrize("test", ["test", "validation"])
def test_records_are_the_images(tmp_path, test):
    prepare(tmp_path, {"train": SPLITS["train"], test: SPLITS["test"]})
    assert len(record_source("tfds:toy", tmp_path, "test")) == 2
    source = pickle.loads(pickle.dumps(record_source("tfds:toy", tmp_path)))
    assert (len(source), source.classes) == (7, 3)
    images, labels = source.gather(np.array([6, 0, 3]))
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    np.testing.assert_array_equal(images, IMAGES[[6, 0, 3]])
    np.testing.assert_array_equal(labels, LABELS[[6, 0, 3]])
    image, label = source[5]
    np.testing.assert_array_equal(image, IMAGES[5])
    assert type(label) is int and label == 2
    with pytest.raises(IndexError, match=r"^record 7 of 7$"):
        source[7]


def test_records_that_are_unlike_the_first(tmp_path):
    sizes = examples(IMAGES[:6]) + examples(IMAGES[6:, 1:])
    folder = prepare(tmp_path, {"train": sizes, "test": examples(labels=LABELS - 1)})
    with pytest.raises(
        InputError,
        match=rf"^{folder} train: image 6 has shape \(4, 4, 3\) and image 0 \(5, 4, 3\), ",
    ):
        record_source("tfds:toy", tmp_path).gather([1, 6])
    with pytest.raises(InputError, match=f"^{folder} test: label 3 is -1, expected 0 to 2$"):
        record_source("tfds:toy", tmp_path, "test").gather([1, 3])


def test_records_of_damaged_files(tmp_path):
    folder = prepare(tmp_path, SPLITS)
    (path,) = folder.glob("toy-train*")
    content = path.read_bytes()
    source = record_source("tfds:toy", tmp_path)
    path.write_bytes(bytes(len(content)))
    with pytest.raises(InputError, match=f"^{folder} train cannot be read after 0 examples: "):
        record_source("tfds:toy", tmp_path)
    path.unlink()
    source = pickle.loads(pickle.dumps(source))
    with pytest.raises(InputError, match=rf"^{folder} train cannot be read at records \[4, 2\]: "):
        source.gather([4, 2])


@pytest.mark.parametrize(
    ("splits", "suffix", "message"),
    [
        (SPLITS, "tfrecord", " is stored as tfrecord, which only TensorFlow reads"),
        (SPLITS | {"train": []}, "array_record", " train holds no examples, expected at least one"),
        ({"train": SPLITS["train"]}, "array_record", " has the splits train, expected train and"),
    ],
)
def test_records_that_cannot_be_opened(tmp_path, splits, suffix, message):
    folder = prepare(tmp_path, splits, suffix=suffix)
    with pytest.raises(InputError, match=f"^{folder}{message}"):
        record_source("tfds:toy", tmp_path)
