"""Models in one file: the same logits to the bit, in as many bytes as the summary says."""

import dataclasses
import functools
import importlib
import json
import sys

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.arithmetics import ADDER, BINARY, dorefa, of_product
from nnlab.costs import stored_bytes
from nnlab.errors import InputError
from nnlab.files import container
from nnlab.layers import GravesLSTMCell
from nnlab.models import (
    CifarResNet,
    LanguageModel,
    LeNet5,
    SmallCNN,
)
from nnlab.models.saved_models import (
    export_variables,
    load_model,
    load_structure,
    save_model,
    save_structure,
)

# What takes time is to compile, not to run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def random_variables(model, image):
    """Parameters and statistics of any values, zeros and minus zeros among the weights."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    rng = np.random.default_rng(0)

    def leaf(path, shape):
        name = jax.tree_util.keystr(path)
        values = rng.normal(size=shape.shape).astype(np.float32)
        values = np.abs(values) + 0.5 if "var" in name or "scale" in name else values
        if "kernel" in name:
            values.flat[:2] = 0.0, -0.0
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def file_bytes(path):
    """Bytes of the header with its length, and of the whole file."""
    return 8 + int.from_bytes(path.read_bytes()[:8], "little"), path.stat().st_size


def test_a_model_comes_back_to_the_bit(tmp_path):
    model = SmallCNN(arithmetic=BINARY, first=ADDER)
    images = np.random.default_rng(1).normal(size=(3, 8, 8, 1)).astype(np.float32)
    variables = random_variables(model, images[:1])
    path = tmp_path / "network.safetensors"
    save_model(path, model, variables, images[:1])
    loaded, found, _ = load_model(path)
    assert loaded == model
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    chex.assert_trees_all_equal(found["batch_stats"], variables["batch_stats"])
    # In training, where normalisation keeps the logits dependent on the images.
    apply = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    run = jax.jit(apply, compiler_options=QUICK)
    logits, _ = run(variables, images)
    assert np.ptp(logits, axis=0).min() > 0.1
    assert np.array_equal(logits, run(found, images)[0])


def test_the_file_has_as_many_bytes_as_the_summary_says(tmp_path):
    model = CifarResNet(8, arithmetic=BINARY)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = random_variables(model, image)
    path = tmp_path / "network.safetensors"
    save_model(path, model, variables, image)
    header, size = file_bytes(path)
    assert size == header + stored_bytes(model.apply, variables, image)


def test_signs_by_hand(tmp_path):
    """LeNet-5: of its 61,942 parameters 150 and 840 of the float layers and 472 of BatchNorm are
    float32, as are 472 running statistics; 60,480 weights are signs, 7,560 bytes."""
    model = LeNet5(arithmetic=BINARY)
    image = np.zeros((1, 32, 32, 1), np.float32)
    variables = random_variables(model, image)
    arrays = export_variables(model, variables, image)
    signs = {name: a for name, a in arrays.items() if a.dtype == np.int8}
    assert sorted(signs) == [
        "params/BinaryConv_0/binary_kernel",
        "params/BinaryDense_0/binary_kernel",
        "params/BinaryDense_1/binary_kernel",
    ]
    assert sum(a.size for a in signs.values()) == 60_480
    kernel = variables["params"]["BinaryDense_1"]["binary_kernel"]
    assert np.array_equal(signs["params/BinaryDense_1/binary_kernel"], np.where(kernel < 0, -1, 1))
    path = tmp_path / "network.safetensors"
    save_model(path, model, variables, image)
    header, size = file_bytes(path)
    assert size - header == 7_560 + 4 * (150 + 840 + 2 * 472)


def test_the_header_tells_what_the_model_is(tmp_path):
    image = np.zeros((1, 8, 8, 3), jnp.bfloat16)
    model = SmallCNN(classes=3, arithmetic=ADDER, dtype=jnp.bfloat16)
    save_model(tmp_path / "x", model, random_variables(model, image), image)
    about = container.read(tmp_path / "x").about
    assert about["model"] == "SmallCNN"
    assert about["fields"]["arithmetic"] == {"arithmetic": "ADDER"}
    assert about["fields"]["dtype"] == {"dtype": "bfloat16"}
    assert about["fields"]["classes"] == 3
    assert about["input"] == {"shape": [8, 8, 3], "dtype": "bfloat16"}
    assert load_model(tmp_path / "x")[0].dtype == jnp.bfloat16


NOTES = {"characters": "ab\u00e9\n", "mean": 1.5, "window": [1, 2], "none": None}


def test_a_recurrent_model_comes_back_with_its_notes(tmp_path):
    model = LanguageModel(5, 8, cell=GravesLSTMCell, arithmetic=BINARY, norm=True)
    symbols = np.random.default_rng(0).integers(0, 5, (2, 7)).astype(np.int32)
    variables = random_variables(model, symbols[:1])
    path = tmp_path / "network.safetensors"
    save_model(path, model, variables, symbols[:1], notes=NOTES)
    header, size = file_bytes(path)
    assert size == header + stored_bytes(model.apply, variables, symbols[:1])
    loaded = load_model(path)
    assert (loaded.model, loaded.notes) == (model, NOTES)
    assert loaded.model.cell is GravesLSTMCell
    run = jax.jit(loaded.model.apply, compiler_options=QUICK)
    assert np.array_equal(run(loaded.variables, symbols), run(variables, symbols))


def test_a_file_from_before_there_were_notes(tmp_path):
    model, image = SmallCNN(), np.zeros((1, 8, 8, 1), np.float32)
    path = tmp_path / "network.safetensors"
    save_model(path, model, random_variables(model, image), image)
    about, arrays = container.read(path)
    del about["notes"]
    container.write(tmp_path / "old", arrays, about=about)
    assert load_model(tmp_path / "old").notes == {}


@pytest.mark.parametrize("note", [float("nan"), np.float32(1), {1, 2}])
def test_notes_that_are_not_json_are_refused(tmp_path, note):
    model, image = SmallCNN(), np.zeros((1, 8, 8, 1), np.float32)
    with pytest.raises(InputError):
        save_model(tmp_path / "x", model, random_variables(model, image), image, notes={"a": note})
    assert not (tmp_path / "x").exists()


class OwnCell(GravesLSTMCell):
    pass


def test_code_of_another_house_needs_trust(tmp_path):
    """A model of the zoo with a cell and a product of the user's."""
    model, symbols = LanguageModel(5, 8, cell=OwnCell), jnp.zeros((1, 3), jnp.int32)
    path = tmp_path / "x"
    save_model(path, model, random_variables(model, symbols), symbols)
    with pytest.raises(InputError, match="OwnCell"):
        load_model(path)
    assert load_model(path, model=model).model is model


@pytest.mark.parametrize(
    "fields",
    [
        {"cell": {"layer": "TransformerCell"}},
        {"cell": {"layer": "recurrent"}},  # a module
        {"arithmetic": {"arithmetic": "TERNARY2"}},
        {"cell": {"codec": "x"}},
        {"heads": 8},
    ],
)
def test_names_that_this_nnlab_does_not_know(tmp_path, fields):
    about = {"model": "LanguageModel", "fields": {"symbols": 5, **fields}}
    container.write(tmp_path / "x", {}, about=about)
    with pytest.raises(InputError):
        load_model(tmp_path / "x")


def test_what_a_header_cannot_name_is_refused(tmp_path):
    image = np.zeros((1, 8, 8, 1), np.float32)
    model = SmallCNN(arithmetic=dataclasses.replace(ADDER, activation=lambda x: x))
    with pytest.raises(InputError, match="lambda"):
        save_model(tmp_path / "x", model, {}, image)
    with pytest.raises(InputError, match="Flax Linen module"):
        save_model(tmp_path / "x", nn.relu, {}, image)  # pyright: ignore[reportArgumentType]
    for name, about in (("y", {"model": "annotations"}), ("z", {"nodes": []})):
        container.write(tmp_path / name, {}, about=about)
        with pytest.raises(InputError):
            load_model(tmp_path / name)


OWN = """
import dataclasses
import flax.linen as nn
from nnlab.arithmetics import FLOAT, Arithmetic

IMPORTED = True


@dataclasses.dataclass(frozen=True)
class Head:
    features: int = 3


def twice(x, kernel, **window):
    return 2 * FLOAT.dense(kernel.shape[-1]).apply({"params": {"kernel": kernel[0, 0]}}, x)


class Net(nn.Module):
    head: Head = Head()
    widths: tuple[int, ...] = (4,)
    body: nn.Module | None = None
    arithmetic: Arithmetic = FLOAT

    @nn.compact
    def __call__(self, x):
        for width in self.widths:
            x = self.arithmetic.activation(self.arithmetic.dense(width)(x))
        return nn.Dense(self.head.features)(x if self.body is None else self.body(x))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's, that a process which reads the file has not yet imported."""
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("own_networks")
    sys.modules.pop("own_networks", None)


def test_a_model_of_ones_own(tmp_path, own):
    model = own.Net(own.Head(2), (5, 4), nn.Dense(6), of_product(own.twice))
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    variables = model.init(jax.random.key(0), x)
    path = tmp_path / "own.safetensors"
    save_model(path, model, variables, x[:1], notes={"classes": ["a", "b"]})
    about = container.read(path).about
    assert about["model"] == "own_networks:Net"
    assert about["fields"]["head"]["fields"] == {"features": 2}
    del sys.modules["own_networks"]
    with pytest.raises(InputError, match="own_networks:Net, and to import that is to run it"):
        load_model(path)
    with pytest.raises(InputError, match="own_networks:"):  # its op is code as well
        load_model(path, model=own.Net)
    assert "own_networks" not in sys.modules
    expected = model.apply(variables, x)
    for found in (load_model(path, trust=True), load_model(path, model=model)):
        chex.assert_trees_all_equal(found.model.apply(found.variables, x), expected)
        assert found.notes == {"classes": ["a", "b"]}
    with pytest.raises(InputError, match="does not fit Net"):
        load_model(path, model=own.Net((5,)))
    with pytest.raises(InputError, match="holds a Net, not a SmallCNN"):
        load_model(path, model=SmallCNN)
    (tmp_path / "own_networks.py").unlink()
    del sys.modules["own_networks"]
    importlib.invalidate_caches()
    with pytest.raises(InputError, match="cannot be found: No module named 'own_networks'"):
        load_model(path, trust=True)


def test_a_class_in_a_script_comes_by_the_caller(tmp_path):
    class Local(nn.Module):
        features: int = 1

        @nn.compact
        def __call__(self, x):
            return nn.Dense(self.features)(x)

    x = np.ones((1, 3), np.float32)
    variables = Local(2).init(jax.random.key(0), x)
    save_model(tmp_path / "x", Local(2), variables, x)
    loaded = load_model(tmp_path / "x", model=Local)
    assert loaded.model == Local(2)
    chex.assert_trees_all_equal(loaded.variables, variables)
    with pytest.raises(InputError, match="cannot be found"):
        load_model(tmp_path / "x", trust=True)


@pytest.mark.parametrize(
    "place", ["os:system", "nnlab.files.container:os.remove", "nnlab.ops.windows:np", "os.path"]
)
def test_a_file_calls_nothing_but_layers(tmp_path, place):
    forged = {"made": place, "options": {}}
    about = {"model": "SmallCNN", "fields": {"classes": forged}}
    container.write(tmp_path / "x", {}, about=about)
    with pytest.raises(InputError):
        load_model(tmp_path / "x")


def test_a_structure_alone(tmp_path):
    path = tmp_path / "structure.json"
    model = SmallCNN(classes=3, arithmetic=dorefa(2, 3), dtype=jnp.bfloat16)
    save_structure(path, model)
    assert json.loads(path.read_text())["fields"]["arithmetic"] == {
        "arithmetic": "dorefa",
        "arguments": [2, 3],
    }
    assert load_structure(path) == model
    with pytest.raises(InputError, match="already exists"):
        save_structure(path, model)
    dense = nn.Dense(3, kernel_init=nn.initializers.normal(0.5))
    save_structure(path, dense, overwrite=True)
    drawn = [m.init(jax.random.key(0), jnp.ones((1, 2))) for m in (dense, load_structure(path))]
    chex.assert_trees_all_equal(*drawn)
    for text in ("", "[]", '{"format": 9, "model": "MLP", "fields": {}}', '{"format": 1}'):
        path.write_text(text)
        with pytest.raises(InputError):
            load_structure(path)


def test_a_weight_without_a_sign_is_refused():
    model, image = LeNet5(arithmetic=BINARY), jnp.zeros((1, 32, 32, 1))
    variables = random_variables(model, image)
    kernel = variables["params"]["BinaryDense_1"]["binary_kernel"]
    variables["params"]["BinaryDense_1"]["binary_kernel"] = kernel.at[0, 0].set(jnp.nan)
    with pytest.raises(InputError, match="BinaryDense_1/binary_kernel has weights that are NaN"):
        export_variables(model, variables, image)
