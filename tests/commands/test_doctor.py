"""The command that names what cannot learn."""

import pytest

from nnlab.commands.doctor import Config, main
from nnlab.errors import InputError

OWN = """
import flax.linen as nn

class Constant(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(x) * 0

class Needy(Constant):
    size: int
"""


def test_a_module_of_the_users(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_networks.py").write_text(OWN.replace("size: int", "size: int = None"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="1"):
        main(Config("own_networks:Constant", input_shape=(4,)))
    assert "gives the same for every example" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"cannot be made: .*no attribute 'Missing'"):
        main(Config("own_networks:Missing", input_shape=(4,)))


def test_a_network_of_the_zoo(capsys):
    main(Config("small_cnn", "adder"))
    assert capsys.readouterr().out == "small_cnn: nothing is found that cannot learn.\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(model="nope"), "MODEL must be one of"),
        (dict(model="mine:Net"), "needs --input-shape"),
        (dict(model="mine:Net", input_shape=(3,), arithmetic="adder"), "--arithmetic is for"),
    ],
)
def test_what_cannot_be_looked_at(options, said):
    with pytest.raises(InputError, match=said):
        Config(**options)
