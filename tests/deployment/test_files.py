"""Integer networks in one file."""

import dataclasses

import jax
import numpy as np
import pytest

from nnlab.deployment import IntegerNetwork, Node, run
from nnlab.deployment.files import load_network, save_network
from nnlab.errors import InputError
from nnlab.files import container


def test_a_network_comes_back_to_the_bit(tmp_path, small_network, few_images):
    path = tmp_path / "network.safetensors"
    save_network(path, small_network, about={"arithmetic": "ADDER", "bits": 4})
    found = load_network(path)
    assert found.nodes == small_network.nodes
    assert found.arrays.keys() == small_network.arrays.keys()
    for name, array in small_network.arrays.items():
        assert found.arrays[name].dtype == array.dtype
        assert np.array_equal(found.arrays[name], array), name
    logits = jax.jit(run(small_network))(few_images)
    assert np.array_equal(jax.jit(run(found))(few_images), logits)
    assert container.read(path).about["about"] == {"arithmetic": "ADDER", "bits": 4}


def sizes(path):
    """Bytes of the arrays by name, and of all that lies behind the header."""
    from safetensors.numpy import load_file

    found = {name: array.nbytes for name, array in load_file(path).items()}
    return found, path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[:8], "little")


def test_bytes_by_hand(tmp_path, small_network):
    save_network(tmp_path / "x", small_network)
    found, behind_header = sizes(tmp_path / "x")
    assert found["near.kernel"] == -(-3 * 3 * 5 * 6 * 3 // 8)  # 0 to 7 are three bits
    assert found["agreeing.kernel"] == -(-3 * 3 * 6 * 7 // 8)  # six signs a word
    assert found["first.kernel"] == 3 * 3 * 2 * 5
    assert found["carrier.center"] == 4 * 5  # packing would save less than the header takes
    assert behind_header == sum(found.values())


def kernel_network(bits, dtype=np.uint8):
    kernel = np.random.default_rng(0).integers(0, 2**bits, (3, 3, 16, 16)).astype(dtype)
    attributes = {"strides": [1, 1], "padding": [[1, 1], [1, 1]]}
    adder = {"shift": 0, "bits": bits, "padding_value": 0}
    node = Node("near", "adder_conv", ("images",), attributes | adder, {"kernel": "kernel"})
    return IntegerNetwork((node,), {"kernel": kernel})


def test_a_network_of_four_bits_is_half_of_one_of_eight(tmp_path):
    numbers = 3 * 3 * 16 * 16
    for bits in (1, 2, 4, 5, 6, 8):
        save_network(tmp_path / str(bits), kernel_network(bits))
        assert sizes(tmp_path / str(bits))[1] == numbers * bits // 8
        kernel = load_network(tmp_path / str(bits)).arrays["kernel"]
        assert np.array_equal(kernel, kernel_network(bits).arrays["kernel"])


def test_what_is_no_network_is_refused(tmp_path, small_network):
    container.write(tmp_path / "x", {}, about={"model": "LeNet5"})
    with pytest.raises(InputError, match=r"holds no integer network: its header has \['model'\]"):
        load_network(tmp_path / "x")
    container.write(tmp_path / "y", {}, about={"nodes": [{"name": "a", "inputs": [], "extra": 1}]})
    with pytest.raises(InputError, match="holds no integer network"):
        load_network(tmp_path / "y")
    save_network(tmp_path / "z", small_network)
    with pytest.raises(InputError, match="already exists"):
        save_network(tmp_path / "z", small_network)
    damaged = bytearray((tmp_path / "z").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "z").write_bytes(damaged)
    with pytest.raises(InputError, match=r"array .* is not what was written"):
        load_network(tmp_path / "z")


def test_the_nodes_are_in_the_header_as_they_are(tmp_path, small_network):
    save_network(tmp_path / "x", small_network)
    first = container.read(tmp_path / "x").about["nodes"][0]
    assert first == dataclasses.asdict(small_network.nodes[0]) | {"inputs": ["images"]}
