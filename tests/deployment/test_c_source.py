"""Networks in C: compiled by the system's compiler, they give the reference's logits to the bit."""

import ctypes
import itertools
import shutil
import subprocess
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import FLOAT
from nnlab.deployment import IntegerNetwork, quantize, reference, write_c
from nnlab.deployment.c_source import _plan, _values
from nnlab.errors import InputError
from nnlab.models import CifarResNet, LeNet5
from tests.deployment.test_network import every_operation
from tests.deployment.test_network import images as random_images
from tests.deployment.test_rules import IMAGES, Separable, made
from tests.deployment.test_translation import fresh

COMPILER = shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
# What strict readers of C object to is an error, and so is reading one type as another.
FLAGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wno-type-limits"]


def compiled(folder, options=("-O1",), name="nnlab"):
    library, code = folder / f"{name}.so", folder / f"{name}.o"
    compile = [*FLAGS, *options, "-fPIC", "-c", str(folder / f"{name}.c"), "-o", str(code)]
    # Linked without the options: with -ffast-math the library would flush this process' subnormals.
    for command in (compile, ["-shared", str(code), "-o", str(library)]):
        subprocess.run([str(COMPILER), *command], check=True, capture_output=True, text=True)
    return getattr(ctypes.CDLL(str(library)), f"{name}_run")


def logits_of(function, images, classes):
    logits = np.full((len(images), classes), np.nan, np.float32)
    for image, row in zip(np.ascontiguousarray(images), logits, strict=True):
        assert function(image.ctypes.data_as(ctypes.c_void_p), row.ctypes) == row.argmax()
    return logits


def check(folder, network, images, **options):
    write_c(folder, network, images.shape[1:], dtype=images.dtype)
    expected = reference(network, images)["logits"]
    found = logits_of(compiled(folder, **options), images, expected.shape[1])
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected)) > 3


@needs_compiler
@pytest.mark.parametrize("options", [("-O3", "-ffast-math", "-march=native"), ("-fwrapv", "-O0")])
def test_every_operation(tmp_path, options):
    """Whatever the options: rounding and shifts are not the compiler's."""
    images = random_images(0, 5)
    images[3, 0, 0], images[4, 0] = 1e9, -1e9
    images[4, 1, 1] = 0.5 / 40.0, 1.5 / 40.0  # halfway
    check(tmp_path, every_operation(0), images, options=options)


@needs_compiler
def test_what_is_no_number_is_0(tmp_path):
    images = random_images(0, 1)
    images[0, :2, 0] = [[np.nan], [np.inf]]
    check(tmp_path, every_operation(1), images, options=("-O2", "-ffast-math"))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("LeNet-5, adder", {"bits": 4}),
        ("LeNet-5, binary", {}),
        ("ResNet-8, adder", {"bits": 4}),
        ("ResNet-8, adder", {"bits": 8}),
        ("ResNet-8, binary", {}),
    ],
)
def test_networks_of_adders_and_signs(tmp_path, name, options):
    model, variables, images = fresh(name)
    network = quantize(model, variables, images, correct_means=False, **options)
    check(tmp_path, network, np.asarray(images[:3]))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", ["LeNet-5", "ResNet-8"])
def test_float_networks_in_int8(tmp_path, name):
    model = LeNet5(4, FLOAT) if name == "LeNet-5" else CifarResNet(8, 4, FLOAT)
    images = fresh(f"{name}, adder")[2]
    variables = model.init(jax.random.key(0), images[:1])
    network = quantize(model, variables, images)
    check(tmp_path, network, np.asarray(images[:3]))


@needs_compiler
@pytest.mark.slow
def test_convolutions_of_groups(tmp_path):
    network = quantize(Separable(), made(Separable()), IMAGES)
    check(tmp_path, network, IMAGES)


@needs_compiler
def test_images_of_bytes_and_another_name(tmp_path, small_network):
    images = np.random.default_rng(0).integers(0, 9, (2, 6, 5, 2), np.uint8)
    write_c(tmp_path, small_network, (6, 5, 2), dtype=np.uint8, name="mine")
    found = logits_of(compiled(tmp_path, name="mine"), images, 4)
    np.testing.assert_array_equal(found, reference(small_network, images)["logits"])
    header = (tmp_path / "mine.h").read_text()
    assert "#define MINE_IMAGE_SIZE 60 /* 6 x 5 x 2 */\n#define MINE_LOGITS 4\n" in header
    assert "int mine_run(const uint8_t *image, float *logits);" in header


def test_buffers_are_used_again(small_network):
    """No two values that are needed at once share a place, and some others do."""
    values = _values(small_network, jax.ShapeDtypeStruct((1, 6, 5, 2), jnp.float32))
    places = _plan(small_network.nodes, values)
    assert places.keys() == values.keys() - {"logits", "images"}
    needed = {name: set() for name in places}
    for number, node in enumerate(small_network.nodes):
        for name in places.keys() & {*node.inputs, node.name}:
            needed[name].add(number)
    spans = {name: range(min(at), max(at) + 1) for name, at in needed.items()}
    shared = 0
    for one, other in itertools.combinations(places, 2):
        a, b = places[one], places[other]
        if a.dtype == b.dtype and max(a.start, b.start) < min(a.start + a.size, b.start + b.size):
            shared += 1
            assert not set(spans[one]) & set(spans[other]), (one, other)
    assert shared > 2


def test_what_cannot_be_written_is_refused(tmp_path, small_network):
    cut = IntegerNetwork(small_network.nodes[:-1], small_network.arrays)
    cases: Any = (
        (cut, (6, 5, 2), {}, "does not end in logits"),
        (small_network, (6, 5, 2), {"dtype": jnp.int32}, "float32 or uint8, not int32"),
        (small_network, (6, 5, 2), {"name": "my net"}, "'my net' is no name in C"),
        (small_network, (6, 6, 2), {}, "made for 15 positions"),
        (small_network, (6, 5, 3), {}, "gets 3 channels, expected 2"),
        (small_network, (60,), {}, "first gets 60 channels, expected 2"),
    )
    for network, shape, options, words in cases:
        with pytest.raises(InputError, match=words):
            write_c(tmp_path, network, shape, **options)
    assert not list(tmp_path.iterdir())
    write_c(tmp_path, small_network, (6, 5, 2))
    (tmp_path / "nnlab.h").unlink()
    with pytest.raises(InputError, match="already exists"):
        write_c(tmp_path, small_network, (6, 5, 2))
    assert [file.name for file in tmp_path.iterdir()] == ["nnlab.c"]
