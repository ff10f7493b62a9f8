"""The command without a clone: what it needs, and that the experiment is the same."""

import runpy
import sys

import pytest

from nnlab.commands import demo
from nnlab.errors import MissingPackageError


@pytest.mark.parametrize("package", ["matplotlib", "sklearn", "tyro"])
def test_what_is_missing_comes_with_one_extra(package, monkeypatch):
    monkeypatch.delitem(sys.modules, "nnlab.figures.report", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"^{package} .*pip install .*\[demo\]'\.$"):
        runpy.run_path(demo.__file__)


def test_the_experiment_is_the_demo_in_a_folder_of_its_own(load_script):
    script = load_script("adder_vs_cnn")
    assert script.main is demo.main
    theirs, ours = vars(script.Config()), vars(demo.Config())
    assert {name for name in ours if ours[name] != theirs[name]} == {"out"}
