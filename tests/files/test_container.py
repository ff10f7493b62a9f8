"""Files of arrays: read by safetensors alone, refused when a bit is not as it was written."""

import hashlib
import json

import numpy as np
import pytest
from safetensors import safe_open

from nnlab.errors import InputError
from nnlab.files import container
from nnlab.files.packing import SIGNS, Code

ARRAYS = {
    "kernel": np.array([[1.5, -2.0]], np.float32),
    "signs": np.array([[1, -1], [-1, 1]], np.int8),
    "scalar": np.array(3, np.int32),
    "nothing": np.zeros((0, 2), np.float16),
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "made" / "network.safetensors"
    container.write(path, ARRAYS, about={"layers": [1, "two"]}, codes={"signs": SIGNS})
    return path


def test_what_is_written_is_read(path):
    about, arrays = container.read(path)
    assert about == {"layers": [1, "two"]}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and np.array_equal(arrays[name], array), name
    assert [file.name for file in path.parent.iterdir()] == ["network.safetensors"]


def test_safetensors_alone_reads_the_file(path):
    """The size and the digests by the words of the module's docstring."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        kernel, signs = file.get_tensor("kernel"), file.get_tensor("signs")
    header = json.loads(metadata["nnlab"])
    assert hashlib.sha256(metadata["nnlab"].encode()).hexdigest() == metadata["sha256"]
    assert np.array_equal(kernel, ARRAYS["kernel"])
    assert signs.tolist() == [0b1001]
    entry = header["tensors"]["signs"]
    assert (entry["shape"], entry["dtype"]) == ([2, 2], "int8")
    assert entry["code"] == {"bits": 1, "lowest": -1, "step": 2}
    digest = hashlib.sha256(b"float32 [1, 2] " + ARRAYS["kernel"].tobytes()).hexdigest()
    assert header["tensors"]["kernel"] == {"sha256": digest}
    length = int.from_bytes(path.read_bytes()[:8], "little")
    assert path.stat().st_size == 8 + length + 2 * 4 + 1 + 4


def test_a_flipped_bit_is_refused(path):
    whole = bytearray(path.read_bytes())
    for at in range(0, len(whole), 2):
        damaged = whole.copy()
        damaged[at] ^= 1 << at // 2 % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"network\.safetensors"):
            container.read(path)


def test_a_file_cut_off_anywhere_is_refused(path):
    whole = path.read_bytes()
    for length in range(0, len(whole), 4):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="is damaged or no"):
            container.read(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(InputError, match="is damaged or no"):
        container.read(path)


def test_what_is_damaged_is_named(path):
    whole = bytearray(path.read_bytes())
    at = whole.index(ARRAYS["kernel"].tobytes())
    whole[at] ^= 1
    path.write_bytes(whole)
    with pytest.raises(InputError, match="array 'kernel' is not what was written"):
        container.read(path)
    whole[at] ^= 1
    at = whole.index(b"two")
    whole[at : at + 3] = b"TWO"
    path.write_bytes(whole)
    with pytest.raises(InputError, match="its header is not what was written"):
        container.read(path)


def test_files_of_others_are_refused(tmp_path, path):
    from safetensors.numpy import save_file

    with pytest.raises(InputError, match="there is no file"):
        container.read(tmp_path / "none")
    save_file({"x": np.zeros(3)}, tmp_path / "plain")
    with pytest.raises(InputError, match=r"its metadata are \[\]"):
        container.read(tmp_path / "plain")
    text = json.dumps({"format": 2})
    digest = hashlib.sha256(text.encode()).hexdigest()
    save_file({"x": np.zeros(3)}, tmp_path / "later", metadata={"nnlab": text, "sha256": digest})
    with pytest.raises(InputError, match="has format 2; this nnlab reads format 1"):
        container.read(tmp_path / "later")


def test_nothing_is_overwritten_unasked(path, tmp_path):
    before = path.read_bytes()
    with pytest.raises(InputError, match="already exists; expected a new file, or overwrite=True"):
        container.write(path, {}, about={})
    assert path.read_bytes() == before
    container.write(path, {"x": np.ones(2)}, about={}, overwrite=True)
    assert container.read(path).arrays["x"].tolist() == [1, 1]
    with pytest.raises(InputError, match="already exists"):
        container.write(tmp_path, {}, about={}, overwrite=True)


def test_a_write_that_fails_leaves_what_was_there(path):
    before = path.read_bytes()
    with pytest.raises(InputError, match="do not fit"):
        wrong = {"x": Code(bits=1, lowest=0, step=1)}
        container.write(path, {"x": np.ones(2) * 7}, about={}, codes=wrong, overwrite=True)
    with pytest.raises(InputError, match=r"array 'x' is complex64"):
        container.write(path, {"x": np.ones(2, np.complex64)}, about={}, overwrite=True)
    with pytest.raises(RuntimeError), container.replacing(path, True) as partial:
        partial.write_bytes(b"half of it")
        raise RuntimeError
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["network.safetensors"]
    with pytest.raises(InputError, match="cannot be written: "):
        container.write(path / "below", {}, about={})
