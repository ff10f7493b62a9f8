"""Exported programs, loaded where there is no nnlab."""

import functools
import hashlib
import re
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

from nnlab import kernels
from nnlab.arithmetics import ADDER, BITNET
from nnlab.deployment import (
    IntegerNetwork,
    Node,
    pack,
    reference,
    run,
)
from nnlab.deployment.stablehlo import load_program, save_program, save_text_program
from nnlab.errors import InputError
from nnlab.layers.attention import empty_cache
from nnlab.models import Bert, Llama, SmallCNN

SHAPES = [("conv", (3, 3, 8, 64)), ("dense", (256, 142))]
REQUANTIZE = {"center": 0, "multiplier": 1, "shift": 6, "offset": 0}
ALONE = """
import sys
sys.modules["nnlab"] = sys.modules["flax"] = None
import jax, numpy as np
network = jax.export.deserialize(open(sys.argv[1], "rb").read())
for n in (1, 3):
    images = np.load(sys.argv[2])[:n]
    np.save(f"{sys.argv[1]}.{n}.npy", network.call(images))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = SmallCNN(arithmetic=ADDER)
    images = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    train = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    for _ in range(50):  # statistics of these images, so that activations are neither 0 nor huge
        variables = variables | train(variables, images)[1]
    network = functools.partial(model.apply, variables)
    path = tmp_path_factory.mktemp("exported") / "network.stablehlo"
    save_program(path, network, (8, 8, 1))
    return path, network, np.asarray(images)


def test_a_fresh_process_with_jax_alone_computes_the_same(exported):
    path, network, images = exported
    np.save(path.with_suffix(".npy"), images)
    arguments = [str(path), str(path.with_suffix(".npy"))]
    subprocess.run([sys.executable, "-c", ALONE, *arguments], check=True)
    with kernels.use("xla"):
        for n in (1, 3):
            # The same operations, compiled by the same XLA for a batch that is known by then.
            logits = np.load(f"{path}.{n}.npy")
            assert np.array_equal(logits, jax.jit(network)(images[:n]))
    assert np.ptp(logits, axis=0).min() > 0.1  # they depend on the image


def test_it_is_the_program_to_the_bit(exported):
    path, _, images = exported
    network = jax.export.deserialize(bytearray(path.read_bytes()))
    assert np.array_equal(load_program(path)(images), network.call(images))
    assert network.in_avals[0].shape[1:] == (8, 8, 1) and network.platforms == ("cpu",)
    # Nothing foreign: JAX's own check of the shapes alone.
    assert set(re.findall(r"custom_call @(\w+)", network.mlir_module())) <= {"shape_assertion"}


def test_the_checksum_is_that_of_sha256sum(exported):
    path = exported[0]
    line = path.with_name("network.stablehlo.sha256").read_text()
    assert line == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  network.stablehlo\n"


def test_a_damaged_program_is_refused(exported, tmp_path):
    path = tmp_path / "network.stablehlo"
    whole, line = (
        exported[0].read_bytes(),
        (exported[0].parent / f"{path.name}.sha256").read_bytes(),
    )
    beside = tmp_path / "network.stablehlo.sha256"
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 1
    for program in (damaged, whole[:-1], b""):
        path.write_bytes(program)
        beside.write_bytes(line)
        with pytest.raises(InputError, match="is damaged: its SHA-256"):
            load_program(path)
    path.write_bytes(whole)
    beside.write_bytes(line.replace(line[:1], b"x"))
    with pytest.raises(InputError, match="is damaged: its SHA-256"):
        load_program(path)
    beside.unlink()
    with pytest.raises(InputError, match=r"there is no file .*sha256; expected a program and its"):
        load_program(path)


def test_files_are_not_overwritten_unasked_and_platforms_are_known(exported):
    path, network, _ = exported
    with pytest.raises(InputError, match="already exists"):
        save_program(path, network, (8, 8, 1))
    for platforms in (("cpu", "abacus"), ()):
        with pytest.raises(InputError, match='platforms must be of "cpu"'):
            save_program(path, network, (8, 8, 1), platforms=platforms, overwrite=True)


def test_one_file_for_several_platforms(tmp_path):
    save_program(tmp_path / "x", lambda x: x.sum(axis=(1, 2)), (2, 2, 1), platforms=("cpu", "cuda"))
    program = jax.export.deserialize(bytearray((tmp_path / "x").read_bytes()))
    assert program.platforms == ("cpu", "cuda")
    assert load_program(tmp_path / "x")(np.ones((5, 2, 2, 1), np.float32)).tolist() == [[4.0]] * 5


def test_an_integer_network_to_the_bit(tmp_path, small_network, few_images):
    flat = Node("flat", "flatten", ("agreeing",), {}, {})
    for name, network in {
        "whole": small_network,
        "flat": IntegerNetwork((*small_network.nodes[:6], flat), small_network.arrays),
    }.items():
        save_program(tmp_path / name, run(network), few_images.shape[1:])
        expected = reference(network, few_images)[network.nodes[-1].name]
        for n in (1, 3):
            found = load_program(tmp_path / name)(few_images[:n])
            assert np.array_equal(found, expected[:n])


def test_the_weights_of_an_integer_network_stay_bytes(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"{name}/kernel": rng.integers(-127, 128, shape, np.int8) for name, shape in SHAPES}
    image, conv, dense = "image", "conv", "dense"
    window = {"strides": [1, 1], "padding": [[0, 0], [0, 0]]}
    clamp = {"low": -127, "high": 127}
    zero = {role: np.full(1, value, np.int32) for role, value in REQUANTIZE.items()}
    network = IntegerNetwork(
        (
            Node(image, "quantize", ("images",), {"scale": 1.0, **clamp}, {}),
            Node(conv, "conv", (image,), window, {"kernel": "conv/kernel"}),
            Node("flat", "flatten", (conv,), {}, {}),
            Node("codes", "requantize", ("flat",), clamp, {role: role for role in zero}),
            Node(dense, "dense", ("codes",), {}, {"kernel": "dense/kernel"}),
        ),
        arrays | zero,
    )
    save_program(tmp_path / "x", run(network), (4, 4, 8))
    program, stored = (tmp_path / "x").stat().st_size, sum(a.nbytes for a in arrays.values())
    assert program < stored + 20_000  # 40,960 bytes of weights; float32 would be 163,840


def _variables(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 1), np.int32))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype), shapes)


@pytest.mark.slow
def test_an_encoder_of_any_texts(tmp_path):
    model = Bert(symbols=11, features=12, layers=1, heads=3, hidden=16, positions=8)
    variables, symbols = _variables(model), np.arange(10, dtype=np.int32).reshape(2, 5)
    save_text_program(tmp_path / "bert", model, variables)
    program = load_program(tmp_path / "bert")
    for texts in (symbols, symbols[:1, :3]):
        expected: Any = model.apply(variables, texts)
        for name, found in program(texts).items():
            np.testing.assert_allclose(found, getattr(expected, name), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_packed_decoder_by_prompt_and_symbol(tmp_path):
    model = Llama(symbols=11, features=12, layers=1, heads=3, hidden=16, arithmetic=BITNET)
    model, variables, _ = pack(model, _variables(model))
    symbols = np.arange(10, dtype=np.int32).reshape(2, 5)
    save_text_program(tmp_path / "step", model, variables, capacity=8)
    program = load_program(tmp_path / "step")
    first, cache = program(empty_cache(model, variables, 2, 8), symbols[:, :4])
    second, _ = program(cache, symbols[:, 4:])
    found, expected = np.concatenate([first, second], axis=1), model.apply(variables, symbols)
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-5, atol=1e-5)


def test_a_network_without_a_cache_has_no_capacity(tmp_path):
    model = Bert(symbols=11, features=12, layers=1, heads=3, hidden=16, positions=8)
    with pytest.raises(InputError, match="Bert has no cache"):
        save_text_program(tmp_path / "bert", model, _variables(model), capacity=4)
