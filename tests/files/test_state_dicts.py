"""State dicts against the PyTorch that wrote them, and files that are damaged or mean harm."""

import collections
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nnlab.errors import InputError
from nnlab.files import read_state_dict

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]
FORMATS = ["zip", "older"]


def save(found, path, form):
    torch.save(found, path, _use_new_zipfile_serialization=form == "zip")
    assert path.read_bytes().startswith(b"PK") == (form == "zip")
    return path


def check_equal(found, expected):
    assert [*found] == [*expected]
    for name, tensor in expected.items():
        assert found[name].shape == tuple(tensor.shape), name
        assert found[name].dtype.name == str(tensor.dtype).removeprefix("torch."), name
        np.testing.assert_array_equal(found[name].astype(float), tensor.detach().double().numpy())


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2)
    return torch.nn.Sequential(*layers)


@pytest.mark.parametrize("form", FORMATS)
def test_a_network(form, network, tmp_path):
    expected = network.state_dict()  # with a 0-d int64 and an attribute `_metadata`
    check_equal(read_state_dict(save(expected, tmp_path / "net.pt", form)), expected)
    parameters = collections.OrderedDict(network.named_parameters())  # as nn.Parameter
    check_equal(read_state_dict(save(parameters, tmp_path / "net.pth", form)), parameters)


def some_of_each_type():
    numbers = torch.tensor([[0.0, 1.0, 2.0], [3.0, 100.0, 0.0]])
    return {str(dtype): numbers.to(dtype) for dtype in DTYPES}


@pytest.mark.parametrize("form", FORMATS)
def test_types_views_and_shared_storages(form, tmp_path):
    base = torch.arange(60, dtype=torch.float32)
    cube = base.reshape(3, 4, 5)
    expected = some_of_each_type() | {
        "base": base,
        "transposed": cube.permute(2, 0, 1),
        "strided": cube[1:, ::2, 1::3],
        "offset": base[17:23],
        "scalar": base[41],
        "expanded": base[7].expand(4, 3),
        "empty": torch.zeros(0, 3),
        "none of some": base[5:5],
    }
    found = read_state_dict(save(expected, tmp_path / "views.pt", form))
    check_equal(found, expected)
    assert np.shares_memory(found["base"], found["transposed"])
    assert found["expanded"].strides == (0, 0)
    assert not found["base"].flags.writeable


def test_safetensors(tmp_path):
    expected = some_of_each_type() | {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 3)}
    save_file(expected, tmp_path / "x.safetensors")
    found = read_state_dict(tmp_path / "x.safetensors")
    check_equal({name: found[name] for name in expected}, expected)
    assert found["torch.bfloat16"].dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize("form", FORMATS)
def test_checkpoints_and_data_parallel(form, network, tmp_path):
    state = network.state_dict()
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    checkpoint = {"epoch": 90, "arch": "net", "state_dict": wrapped, "optimizer": optimizer}
    check_equal(read_state_dict(save(checkpoint, tmp_path / "a.pt", form)), state)
    half = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert [*read_state_dict(save(half, tmp_path / "b.pt", form))] == [*half]


def test_reads_without_pytorch(network, tmp_path):
    path = save(network.state_dict(), tmp_path / "net.pt", "zip")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from nnlab.data import read_state_dict\n"
        f"print(len(read_state_dict({str(path)!r})))"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert process.stdout == "9\n"


class Global:
    """Pickles as the global name alone."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Pickles as a call of a global; with `state`, that is then set on the result."""

    def __init__(self, function, *args, state=None):
        self.function, self.args, self.state = function, args, state


class Storage:
    def __init__(self, key, numel, kind="FloatStorage", tag="storage"):
        self.pid = tag, Global("torch", kind), key, "cpu", numel


PythonPickler: Any = vars(pickle)["_Pickler"]  # which can be told what to write


class Writer(PythonPickler):
    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Storage) else None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.args)
            self.write(pickle.REDUCE)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        else:
            super().save(obj, save_persistent_id)


def dumped(obj):
    file = io.BytesIO()
    Writer(file, 2).dump(obj)
    return file.getvalue()


def mentions(pickled, key):
    return b"X" + struct.pack("<I", len(key)) + key.encode() in pickled


def written(obj, path, form, storages=(("0", bytes(16)),), pickled=None):
    """A file as of torch.save with any object in it, pickled by hand."""
    content = dumped(obj) if pickled is None else pickled
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("net/data.pkl", content)
            for key, data in storages:
                archive.writestr(f"net/data/{key}", data)
    else:
        about = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
        start = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, about))
        storages = [(key, data) for key, data in storages if mentions(content, key)]
        keys = pickle.dumps([key for key, _ in storages], 2)
        ends = b"".join(struct.pack("<q", len(data) // 4) + data for _, data in storages)
        path.write_bytes(start + content + keys + ends)
    return path


REBUILD = Global("torch._utils", "_rebuild_tensor_v2")


def tensor(storage=None, offset=0, size=(2, 2), stride=(2, 1), rebuild=REBUILD):
    ordered = Call(Global("collections", "OrderedDict"))
    storage = Storage("0", 4) if storage is None else storage
    return Call(rebuild, storage, offset, size, stride, False, ordered)


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_state_dict(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path)) and sentence.endswith(".") and "\n" not in sentence
    return sentence.removeprefix(str(path))


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_written_by_hand_is_read(form, tmp_path):
    data = (("0", np.arange(4, dtype="<f4").tobytes()),)
    old = Call(Global("torch._utils", "_rebuild_tensor"), Storage("0", 4), 1, (3,), (1,))
    found = read_state_dict(written({"a": tensor(), "b": old}, tmp_path / "x", form, data))
    np.testing.assert_array_equal(found["a"], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(found["b"], [1, 2, 3])  # as before version 0.4


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "function",
    [
        *(("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "getattr")),
        *(("torch", "load"), ("torch._utils", "_rebuild_tensor_v3"), ("operator", "attrgetter")),
        *(("collections", "OrderedDict.fromkeys"), ("nnlab.files.state_dicts", "_arrays")),
    ],
)
def test_nothing_else_is_called(form, function, tmp_path):
    trace = tmp_path / "trace"
    call = Call(Global(*function), f"touch {trace}")
    said = refusal(written({"a": call}, tmp_path / "x", form))
    assert ".".join(function) in said and not trace.exists()


@pytest.mark.parametrize("form", FORMATS)
def test_a_pickle_of_os_system_runs_nothing(form, tmp_path):
    trace = tmp_path / "trace"

    class Harm:
        def __reduce__(self):
            return os.system, (f"touch {trace}",)

    assert "system" in refusal(save({"a": torch.ones(1), "b": Harm()}, tmp_path / "x", form))
    bare = tmp_path / "bare.pt"
    bare.write_bytes(pickle.dumps(Harm()))
    assert "system" in refusal(bare) and not trace.exists()
    pickle.loads(bare.read_bytes())
    assert trace.exists()  # so it would have


ORDERED = Global("collections", "OrderedDict")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Call(ORDERED, 5), "int"),
        (Call(REBUILD), "missing"),
        (Call(REBUILD, 1, 2, 3, 4, 5, 6), "damaged"),
        (Call(REBUILD, "storage", 0, (1,), (1,), False, {}), "has a from 0 on"),
        (Call(REBUILD, Storage("0", 4), 0, (1,), (1,), False, {}, {"neg": True}), "neg"),
        (Call(Global("torch", "FloatStorage"), 3), "callable"),
        (Call(ORDERED, state={"keys": 1}), "OrderedDict under 'a'"),
        (Call(REBUILD, *"abcdef", state={"x": 1}), "damaged"),
        (tensor(offset=1), "element 4 of a storage with 4 elements"),
        (tensor(offset=-1), "from -1 on"),
        (tensor(stride=(3, 1)), "element 4"),
        (tensor(stride=(-1, 1)), "(-1, 1)"),
        (tensor(stride=(1,)), "(1,)"),
        (tensor(size=(2**62, 2**62), stride=(0, 0)), "damaged"),
        (tensor(size=(2, 10**30)), "element"),
        (tensor(size=(2.0, 2)), "2.0"),
        (tensor(size=(True, 2)), "True"),
        (tensor(Storage("0", 5)), "16 bytes in storage 0, expected 5 elements of float32"),
        (tensor(Storage("0", 4, "DoubleStorage")), "storage 0"),
        (tensor(Storage("0", -4)), "-4"),
        (tensor(Storage("0", 4, "ComplexFloatStorage")), "torch.ComplexFloatStorage"),
        (tensor(Storage("0", 4, tag="module")), "module"),
        (tensor(Storage("1", 4)), "1"),
        (7, "int under 'a'"),
        ({"b": tensor()}, "dict under 'a'"),
    ],
)
def test_tensors_that_cannot_be(form, value, words, tmp_path):
    assert words in refusal(written({"a": value}, tmp_path / "x", form))


def test_what_a_pickle_is_given_it_cannot_change(tmp_path):
    changed = Call(REBUILD, Storage("0", 4), 0, (4,), (1,), False, {})
    content = dumped({"a": changed})
    # Sets the defaults of the function that makes tensors.
    setting = dumped((None, {"__defaults__": (1, 2, 3, 4, 5, 6, 7)}))[2:-1]
    hostile = content[:2] + dumped(REBUILD)[2:-1] + setting + pickle.BUILD + pickle.POP
    path = written(None, tmp_path / "hostile", "zip", pickled=hostile + content[2:])
    assert "a tensor with 7" in refusal(path)  # its own reading it can change
    after = written({"a": changed}, tmp_path / "after", "zip")
    assert read_state_dict(after)["a"].shape == (4,)
    assert "missing" in refusal(written({"a": Call(REBUILD)}, tmp_path / "x", "zip"))
    types = dumped(ORDERED)[2:-1] + dumped((None, {"__len__": 1}))[2:-1]
    hostile = content[:2] + types + pickle.BUILD + pickle.POP + content[2:]
    assert "immutable" in refusal(written(None, tmp_path / "y", "zip", pickled=hostile))


@pytest.mark.parametrize("form", FORMATS)
def test_objects_that_are_no_state_dict(form, tmp_path):
    assert "holds a list" in refusal(save([torch.ones(2)], tmp_path / "a", form))
    assert "holds no arrays" in refusal(save({}, tmp_path / "b", form))
    assert "int under 'epoch'" in refusal(
        save({"epoch": 3, "w": torch.ones(2)}, tmp_path / "c", form)
    )
    assert "float under 2" in refusal(save({2: 0.5}, tmp_path / "d", form))
    assert "torch.nn.modules" in refusal(save(torch.nn.Linear(2, 2), tmp_path / "e", form))
    complex_numbers = {"w": torch.ones(2, dtype=torch.complex64)}
    assert "ComplexFloatStorage" in refusal(save(complex_numbers, tmp_path / "f", form))


@pytest.mark.parametrize("form", [*FORMATS, "safetensors"])
def test_a_file_cut_anywhere_is_refused(form, network, tmp_path):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    if form == "safetensors":
        save_file(network.state_dict(), whole)
    else:
        whole, cut = save(network.state_dict(), tmp_path / "whole.pt", form), tmp_path / "cut.pt"
    content = whole.read_bytes()
    for size in {*range(0, len(content), 53), *range(len(content) - 9, len(content))}:
        cut.write_bytes(content[:size])
        refusal(cut)


@pytest.mark.parametrize("form", FORMATS)
def test_flipped_bits_never_raise_anything_else(form, network, tmp_path):
    content = save(network.state_dict(), tmp_path / "whole.pt", form).read_bytes()
    path, rng = tmp_path / "flipped.pt", np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            read_state_dict(path)
        except InputError:
            refused += 1
    assert refused > 30


def test_foreign_files(tmp_path):
    def file(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    assert "No such file" in refusal(tmp_path / "nowhere.pt")
    assert "No such file" in refusal(tmp_path / "nowhere.safetensors")
    assert "directory" in refusal(tmp_path)
    assert "empty" in refusal(file("a.pt", b""))
    assert "damaged" in refusal(file("b.pt", b"\x89PNG\r\n\x1a\n" + bytes(99)))
    assert "damaged" in refusal(file("c.safetensors", b"\xff" * 99))
    assert "does not begin" in refusal(file("d.pt", pickle.dumps({"a": 1})))
    magic = pickle.dumps(0x1950A86A20F9469CFC6C)
    assert "version 7" in refusal(file("e.pt", magic + pickle.dumps(7)))
    big = pickle.dumps(1001) + pickle.dumps({"little_endian": False})
    assert "big-endian" in refusal(file("f.pt", magic + big))
    save_file({"w": torch.ones(2, dtype=torch.float8_e4m3fn)}, tmp_path / "g.safetensors")
    assert "F8_E4M3" in refusal(tmp_path / "g.safetensors")


def test_foreign_zip_files(tmp_path):
    def archive(name, *entries, compression=zipfile.ZIP_STORED):
        with zipfile.ZipFile(tmp_path / name, "w", compression) as written:
            for entry, content in entries:
                written.writestr(entry, content)
        return tmp_path / name

    content = dumped({"a": tensor()})
    whole = ("net/data.pkl", content), ("net/data/0", bytes(16))
    assert read_state_dict(archive("whole", *whole))["a"].shape == (2, 2)
    assert "0 data.pkl" in refusal(archive("other", ("readme", "text")))
    assert "2 data.pkl" in refusal(archive("two", *whole, ("b/data.pkl", content)))
    assert "big-endian" in refusal(archive("big", *whole, ("net/byteorder", "big")))
    # A kilobyte can be a gigabyte compressed; PyTorch compresses nothing.
    compressed = archive("bomb", *whole, compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in refusal(compressed)
    assert "data/0" in refusal(archive("less", whole[0]))
