"""State dicts against the PyTorch that wrote them, and files that are damaged or mean harm."""

import collections
import os
import pickle
import sys

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nnlab.errors import InputError, MissingPackageError
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


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_state_dict(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path)) and sentence.endswith(".") and "\n" not in sentence
    return sentence.removeprefix(str(path))


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
        "half": torch.arange(12).reshape(3, 4).T[1:].to(torch.bfloat16),
        "scalar": base[41],
        "expanded": base[7].expand(4, 3),
        "empty": torch.zeros(0, 3),
    }
    found = read_state_dict(save(expected, tmp_path / "views.pt", form))
    check_equal(found, expected)
    assert np.shares_memory(found["base"], found["transposed"])
    assert not any(array.flags.writeable for array in found.values())


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


@pytest.mark.parametrize("form", FORMATS)
def test_a_pickle_of_os_system_runs_nothing(form, tmp_path):
    trace = tmp_path / "trace"

    class Harm:
        def __reduce__(self):
            return os.system, (f"touch {trace}",)

    assert "system" in refusal(save({"a": torch.ones(1), "b": Harm()}, tmp_path / "x", form))
    bare = tmp_path / "bare.pt"
    bare.write_bytes(pickle.dumps(Harm(), 2))
    assert "system" in refusal(bare) and not trace.exists()
    pickle.loads(bare.read_bytes())
    assert trace.exists()  # so it would have


def test_a_pytorch_that_can_be_tricked_is_refused(tmp_path, monkeypatch):
    path = save({"a": torch.ones(1)}, tmp_path / "x.pt", "zip")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    assert "2.6 or newer to be read, not 2.5.1" in refusal(path)


def test_without_pytorch_safetensors_are_read_and_the_extra_is_named(tmp_path, monkeypatch):
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    path = save({"a": torch.ones(1)}, tmp_path / "x.pt", "zip")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert read_state_dict(tmp_path / "x.safetensors")["a"] == 1
    with pytest.raises(MissingPackageError, match=r"^torch is .*pip install .*\[torch\]'\.$"):
        read_state_dict(path)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([torch.ones(2)], "holds a list"),
        ({}, "holds no arrays"),
        ({"epoch": 3, "w": torch.ones(2)}, "int under 'epoch'"),
        ({2: 0.5}, "float under 2"),
        (torch.nn.Linear(2, 2), "torch.nn.modules"),
    ],
)
def test_objects_that_are_no_state_dict(form, value, words, tmp_path):
    assert words in refusal(save(value, tmp_path / "x", form))


@pytest.mark.parametrize("form", [*FORMATS, "safetensors"])
def test_a_file_cut_anywhere_is_refused(form, network, tmp_path):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    if form == "safetensors":
        save_file(network.state_dict(), whole)
    else:
        whole, cut = save(network.state_dict(), tmp_path / "whole.pt", form), tmp_path / "cut.pt"
    content = whole.read_bytes()
    for size in {*range(0, len(content), 97), *range(len(content) - 9, len(content))}:
        cut.write_bytes(content[:size])
        refusal(cut)


def test_a_flipped_bit_of_a_weight_is_found(network, tmp_path):
    path = save(network.state_dict(), tmp_path / "net.pt", "zip")
    content, weights = path.read_bytes(), network[0].weight.detach().numpy().tobytes()
    at = content.index(weights) + 5
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    assert "data/0 does not have its checksum" in refusal(path)


def test_foreign_files(tmp_path):
    def file(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    assert "No such file" in refusal(tmp_path / "nowhere.pt")
    assert "No such file" in refusal(tmp_path / "nowhere.safetensors")
    assert "directory" in refusal(tmp_path)
    assert "damaged" in refusal(file("b.pt", b"\x89PNG\r\n\x1a\n" + bytes(99)))
    assert "damaged" in refusal(file("c.safetensors", b"\xff" * 99))
    save_file({"w": torch.ones(2, dtype=torch.float8_e4m3fn)}, tmp_path / "g.safetensors")
    assert "F8_E4M3" in refusal(tmp_path / "g.safetensors")
