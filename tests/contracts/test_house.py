"""The laws of the house: what may import what, and old import paths that go on working.

The core imports the core, downwards in the order of `CORE`. A wing imports the core and itself.
Everything else may import anything below it, and no two modules import each other, whether at the
top, within a function or for a type checker alone.
"""

import ast
import graphlib
import importlib
import importlib.metadata
import importlib.resources
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import nnlab
from nnlab import _moved

CORE = [
    *(
        "errors",
        "paths",
        "console",
        "kernels",
        "ops",
        "layers",
        "arithmetics",
        "networks",
        "optim",
        "data",
        "files",
    ),
    *("training", "costs", "figures", "runs", "testing"),
]
WINGS = {"vision", "sequences", "series", "graphs", "search", "classics"}
ABOVE = {"models", "deployment", "commands", "playground"}
LEAVES = {"nnlab._moved", "nnlab.errors"}
PACKAGE = Path(nnlab.__file__).parent


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_module(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _imports(path: Path) -> set[str]:
    """The modules of nnlab that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in FILES else str(node.module) for name in names}
    return {name for name in found if name.split(".")[0] == "nnlab"}


IMPORTS = {module: _imports(path) for module, path in FILES.items()}


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_a_place_in_the_order():
    rooms = {_room(module) for module in FILES} - {"", "__main__", "_moved"}
    assert rooms <= {*CORE, *WINGS, *ABOVE}


def test_imports_run_downwards():
    wrong = []
    for module, imported in IMPORTS.items():
        room = _room(module)
        for other in imported - LEAVES:
            below = _room(other)
            if room in CORE:
                allowed = CORE[: CORE.index(room) + 1]
            elif room in WINGS:
                allowed = [*CORE, room]
            else:
                continue
            if below not in allowed:
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_nothing_imports_commands():
    above = {"", "__main__", "commands", "playground"}
    for module, imported in IMPORTS.items():
        if _room(module) not in above:
            assert not {other for other in imported if _room(other) in above - {""}}, module


def test_rules_say_that_they_have_no_forward_mode():
    """They are all made by the one decorator that does."""
    bare = {module for module, path in FILES.items() if "jax.custom_vjp" in path.read_text()}
    assert bare == {"nnlab.kernels.derivatives"}


def _outside(path: Path) -> set[str]:
    """What a file imports from other distributions when it is imported."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    return found - sys.stdlib_module_names - {"nnlab"}


def test_heavy_packages_are_imported_where_they_are_used():
    common = {"jax", "jaxlib", "numpy", "ml_dtypes", "flax", "optax", "chex", "typing_extensions"}
    more = {"figures": {"matplotlib"}, "commands": {"tyro"}}
    for module, path in FILES.items():
        assert _outside(path) <= common | more.get(_room(module), set()), module


def test_leaves_import_nothing():
    assert all(not IMPORTS[leaf] for leaf in LEAVES)


def test_no_modules_import_each_other():
    graphlib.TopologicalSorter(IMPORTS).prepare()  # raises CycleError, which names the circle


def _forwarded(old: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"^{old}\.{name} is now nnlab\."):
        value = getattr(importlib.import_module(old), name)
    new = _moved.MODULES.get(old) or _moved.NAMES[old, name]
    assert value is getattr(importlib.import_module(new), name)


def test_old_paths_forward():
    # Names first: once `nnlab.analysis.energy` is imported as a module, that is what its package
    # has by that name.
    for old, name in sorted(_moved.NAMES):
        _forwarded(old, name)
    for old, new in sorted(_moved.MODULES.items()):
        public = [name for name in vars(importlib.import_module(new)) if not name.startswith("_")]
        _forwarded(old, public[-1])  # defined there; the first are what it imports


def test_old_commands_run(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["nnlab.summary", "--help"])
    monkeypatch.delitem(sys.modules, "nnlab.summary", raising=False)
    monkeypatch.delitem(sys.modules, "nnlab.commands.summary", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("nnlab.summary", run_name="__main__", alter_sys=True)
    assert not ended.value.code and "--arithmetic" in capsys.readouterr().out


def test_importing_nnlab_imports_no_jax():
    program = """
import sys, nnlab
assert not {"jax", "flax", "numpy"} & sys.modules.keys()
assert issubclass(nnlab.errors.InputError, ValueError) and "jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_version_and_types_are_published():
    assert nnlab.__version__ == importlib.metadata.version("nnlab")
    assert importlib.resources.files("nnlab").joinpath("py.typed").is_file()
