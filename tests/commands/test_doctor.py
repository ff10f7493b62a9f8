"""The command that names what cannot learn."""

import dataclasses
from typing import Any

import pytest

from nnlab.arithmetics import ADDER, FLOAT
from nnlab.commands import summary
from nnlab.commands.doctor import Config, main
from nnlab.errors import InputError

OWN = """
import dataclasses
import flax.linen as nn
from nnlab.arithmetics import ADDER, FLOAT, Arithmetic

MINE = dataclasses.replace(ADDER, name="mine")

class Constant(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(x) * 0

class Sized(nn.Module):
    size: int
    arithmetic: Arithmetic = FLOAT
    relu: bool = True
    widths: tuple = (2, 2)

    @nn.compact
    def __call__(self, x):
        return self.arithmetic.dense(self.size)(x)
"""


def test_a_module_of_the_users(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="1"):
        main(Config("own_networks:Constant", input_shape=(4,)))
    assert "gives the same for every example" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"cannot be imported: .*no attribute 'Missing'"):
        main(Config("own_networks:Missing", input_shape=(4,)))


@pytest.mark.parametrize(
    ("fields", "options", "said"),
    [
        ((), {}, "own_networks:Sized needs its fields, --fields size=…"),
        (("size=3", "depth=2"), {}, "has no field depth; expected size, arithmetic, relu, widths"),
        (("size=3", "relu=no"), {}, "relu is the text 'no', expected such as True"),
        (("size",), {}, "--fields takes NAME=VALUE, such as width=16, not 'size'"),
        (("size=3",), {"norm": True}, "--norm is an option that own_networks:Sized does not have"),
    ],
)
def test_fields_that_a_module_does_not_take(fields, options, said, tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    config = summary.Config("own_networks:Sized", input_shape=(4,), fields=fields, **options)
    with pytest.raises(InputError, match=said):
        summary.build(config)


def test_fields_of_a_module(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    given = summary.Config("own_networks:Sized", input_shape=(4,), fields=("size=3",))
    named = dataclasses.replace(given, fields=("size=3", "arithmetic=adder"))
    asked = dataclasses.replace(given, arithmetic="adder")
    made, *others = [summary.build(config) for config in (given, named, asked)]
    assert made.size == 3 and made.arithmetic is FLOAT
    assert all(other.arithmetic is ADDER for other in others)
    for text in ("False", "false"):
        fields = ("size=3", f"relu={text}", "widths=(4, 8)")
        made = summary.build(dataclasses.replace(given, fields=fields))
        assert made.relu is False and made.widths == (4, 8)


def test_an_arithmetic_of_the_users(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    mine = "own_networks:MINE"
    fields = summary.Config(
        "own_networks:Sized", input_shape=(4,), fields=("size=3", f"arithmetic={mine}")
    )
    options = summary.Config("small_cnn", mine, classifier=mine)
    made: Any = [summary.build(fields), summary.build(options)]
    assert [model.arithmetic.name for model in made] == ["mine", "mine"]
    assert made[1].classifier is made[1].arithmetic
    for name, said in (
        ("own_networks:OTHER", "--first: own_networks:OTHER cannot be imported: .*no attribute"),
        ("own_networks:Sized", "expected an arithmetic, such as nnlab.arithmetics.of_term makes"),
        ("mine", "there is no arithmetic mine, expected one of float, adder"),
    ):
        with pytest.raises(InputError, match=said):
            summary.Config("lenet5", first=name)


def test_a_network_of_the_zoo(capsys):
    main(Config("small_cnn", "adder"))
    assert capsys.readouterr().out == "small_cnn: nothing is found that cannot learn.\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(model="nope"), "MODEL must be one of"),
        (dict(model="mine:Net"), "needs --input-shape"),
        (dict(model="lenet5", fields=("size=3",)), "--fields are for a network of your own"),
    ],
)
def test_what_cannot_be_looked_at(options, said):
    with pytest.raises(InputError, match=said):
        Config(**options)
