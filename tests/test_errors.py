"""The command that installs an extra is one that works, wherever nnlab has come from."""

import importlib.metadata
import json
from types import SimpleNamespace

import pytest

from nnlab import errors


@pytest.mark.parametrize(
    ("checkout", "source", "command"),
    [
        (True, None, "pip install -e '{root}[onnx]'"),
        (
            False,
            {"url": "file://{root}/my%20lab", "dir_info": {}},
            "pip install '{root}/my lab[onnx]'",
        ),
        (
            False,
            {"url": "https://x.org/nnlab", "vcs_info": {"vcs": "git"}},
            "pip install 'nnlab[onnx] @ git+https://x.org/nnlab'",
        ),
        (False, {"url": "file://{root}/moved"}, "pip install '.[onnx]' in a checkout of nnlab"),
        (False, None, "pip install '.[onnx]' in a checkout of nnlab"),
    ],
)
def test_an_extra_comes_from_where_nnlab_has(checkout, source, command, tmp_path, monkeypatch):
    for folder in (tmp_path / "my lab", *[tmp_path] * checkout):
        folder.mkdir(exist_ok=True)
        (folder / "pyproject.toml").touch()
    text = source and json.dumps(source).replace("{root}", str(tmp_path))
    told = SimpleNamespace(read_text=lambda name: text)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: told)
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "nnlab" / "errors.py"))
    assert errors.installing("onnx") == command.replace("{root}", str(tmp_path))
