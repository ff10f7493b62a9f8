"""Pictures of networks: what is in the SVG."""

from xml.etree import ElementTree

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from nnlab.arithmetics import ADDER, BINARY, of_product
from nnlab.errors import InputError
from nnlab.figures import network_picture
from nnlab.figures.network_picture import draw_network
from nnlab.layers.recurrent import SimpleCell
from nnlab.ops.products import shift_conv

SVG = "{http://www.w3.org/2000/svg}"


def drawn(model, *shape, **options):
    inputs = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), inputs)
    return ElementTree.fromstring(draw_network(model, variables, inputs, **options))


def boxes(svg):
    """{name: (class, other lines, tooltip)}"""
    found = {}
    for group in svg.iter(f"{SVG}g"):
        texts = ["".join(text.itertext()) for text in group.findall(f"{SVG}text")]
        if group.get("class"):
            found[texts[0]] = (group.get("class"), texts[1:], group.findtext(f"{SVG}title"))
    return found


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(ADDER.dense(5, name="adder")(x))
        x = x + BINARY.dense(5, name="signs")(x)
        x = of_product(shift_conv).dense(3, name="<shift & add>")(x)
        return nn.LayerNorm(name="norm")(x)


def test_boxes_say_kind_arithmetic_shape_and_bits():
    svg = drawn(Network(), 4, title="a < b")
    assert svg.findtext(f"{SVG}title") == "a < b"
    found = boxes(svg)
    assert found["input"][:2] == ("input plain", ["1x4"])
    assert found["adder"][:2] == ("layer adder", ["AdderDense · adder", "1x5 · 20 of 32 bits"])
    assert found["signs"][:2] == ("layer binary", ["BinaryDense · binary", "1x5 · 25 of 1 bit"])
    assert found["<shift & add>"][1][0] == "ProductDense · shift"
    assert found["norm"][:2] == ("layer plain", ["LayerNorm", "1x3 · 6 of 32 bits"])
    assert found["+"][0] == "junction plain"
    assert "20 parameters of 32 bits at rest" in found["adder"][2]
    assert "40 additions" in found["adder"][2]
    paths = [path for path in svg.iter(f"{SVG}path") if path.get("class") == "flow"]
    assert len(paths) == 7 and all(path.get("marker-end") for path in paths)


def test_nothing_is_loaded_and_both_modes_have_colours():
    text = ElementTree.tostring(drawn(nn.Dense(2), 3), encoding="unicode")
    assert "prefers-color-scheme: dark" in text
    assert text.replace("http://www.w3.org/2000/svg", "").count("http") == 0


def test_a_loop():
    svg = drawn(nn.RNN(SimpleCell(3)), 7, 2)
    back = [path for path in svg.iter(f"{SVG}path") if path.get("class") == "back"]
    assert len(back) == 1
    assert boxes(svg)["cell/recurrent"][1] == ["Dense · float", "1x3 · 9 of 32 bits", "7 steps"]
    notes = [text.text for text in svg.iter(f"{SVG}text") if text.get("class") == "word"]
    assert "3 of 32 bits in modules around these" in notes  # the cell's bias


def test_chains_of_like_boxes_are_one_and_many_boxes_are_folded(monkeypatch):
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x + nn.Dense(4)(nn.relu(nn.Dense(6)(x)))

    monkeypatch.setattr(network_picture, "_MANY", 10)
    chain = nn.Sequential([Block() for _ in range(3)])
    found = boxes(drawn(chain, 4))
    assert list(found) == ["input", "layers_0", "output"]
    kind, lines, tooltip = found["layers_0"]
    assert kind == "layer float" and lines[-1] == "3 like this in a chain"
    assert lines[1] == "1x4 · 58 of 32 bits" and "layers_2" in tooltip
    every = drawn(chain, 4, levels=2)
    assert len([g for g in every.iter(f"{SVG}g") if g.get("class") == "layer float"]) == 6
    assert list(boxes(drawn(nn.Sequential([nn.relu]), 4))) == ["input", "(model)", "output"]

    class Chain(nn.Module):
        @nn.compact
        def __call__(self, x):
            for activation in (nn.relu, nn.relu, nn.tanh):
                x = activation(nn.Dense(4)(x))
            return nn.Dense(4)(x)

    found = boxes(drawn(Chain(), 4))
    assert list(found) == ["input", "Dense_0", "Dense_3", "output"]
    assert found["Dense_0"][1][-2:] == ["3 like this in a chain", "ReLU between"]
    with pytest.raises(InputError, match="levels"):
        drawn(chain, 4, levels=0)


def test_words_stand_at_each_connection_and_inside_the_drawing():
    class Pooled(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (1, 1))(x))
            x = nn.relu(x + nn.Conv(4, (3, 3))(x))
            ways = [nn.tanh(nn.max_pool(x, (4, 4))).mean((1, 2)), x.mean((1, 2))]
            return nn.max_pool(nn.relu(jnp.concatenate(ways, -1))[..., None], (8,))

    svg = drawn(Pooled(), 4, 4, 2)
    words = [text for text in svg.iter(f"{SVG}text") if text.get("class") == "word"]
    long = "ReLU, maximum of windows"
    said = ["ReLU", "ReLU", long, f"{long}, tanh, mean", "ReLU, mean"]
    assert sorted(text.text or "" for text in words) == said
    left, top, width, height = map(float, (svg.get("viewBox") or "").split())
    for text in words:
        size, x, y = 6 * len(text.text or ""), float(text.get("x", 0)), float(text.get("y", 0))
        shift = {"start": 0, "middle": -size / 2, "end": -size}
        x += shift[(text.get("style") or "").removeprefix("text-anchor: ")]
        assert left <= x and x + size <= left + width and top < y < top + height
