"""`nnlab playground` writes the page."""

import pytest

from nnlab.commands.playground import Config, main
from nnlab.errors import InputError


@pytest.mark.slow  # prints every function
def test_writes_one_file_and_replaces_it(tmp_path, capsys):
    path = tmp_path / "lesson" / "page.html"
    for _ in range(2):
        main(Config(out=str(path)))
    assert "nnlab playground" in path.read_text(encoding="utf-8")
    assert [each.name for each in path.parent.iterdir()] == ["page.html"]
    assert str(path) in capsys.readouterr().out


@pytest.mark.slow
def test_a_file_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="written"):
        main(Config(out=str(tmp_path / "file" / "page.html")))
