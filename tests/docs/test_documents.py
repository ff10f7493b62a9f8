"""The documents are true: generated parts, code, commands, links and names."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nnlab import arithmetics

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [path for path in PAGES if path.name != "moved.md"]  # which a build of the site leaves
DOCUMENTS = [*PAGES, *sorted((ROOT / "experiments").rglob("README.md"))]
FENCES = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
by_name = pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix()
)

TUTORIALS = {"own_arithmetic", "own_network", "to_integers"}
SLOW = {"README", "deployment", "extending", "getting_started", "images", "models", "sequences"}
SLOW |= {
    "classics",
    "detection",
    "faq",
    "generation",
    "playground",
    "training",
    "transformers",
    *TUTORIALS,
}
TRACED = {  # what is traced in place of compiled and run, and small where it would be large
    "README": [("epoch(state, (", "jax.eval_shape(epoch, state, (")],
    "extending": [("epoch(state, train)", "jax.eval_shape(epoch, state, train)")],
    "sequences": [
        ("features=256", "features=8"),
        (
            "jax.jit(steps)(state, (text, text), 20)",
            "jax.eval_shape(lambda s: steps(s, (text, text), 20), state)",
        ),
    ],
}


def test_readme_is_short():
    assert len(PAGES[0].read_text().splitlines()) <= 200


def test_generating_changes_nothing(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    for path, text in importlib.import_module("generate").documents().items():
        assert path.read_text() == text, f"{path} is old: python docs/generate.py"


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in SLOW))
        for path in PAGES
    ],
)
def test_code_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if path.stem == "models":
        _save_resnet18()
    text = path.read_text()
    for there, here in TRACED.get(path.stem, ()):
        assert text.count(there) == 1
        text = text.replace(there, here)
    names, printed = {"__name__": "page"}, ""
    for language, block in FENCES.findall(text):
        if file := re.match(r"(?:# |/\* )(\w+\.(?:py|c))\b", block):
            Path(file[1]).write_text(block)
        elif language == "python":
            exec(compile(block, path.name, "exec"), names)
        elif language == "sh":
            printed = _printed(block)
        elif language == "text":
            assert printed == block


def _printed(commands: str) -> str:
    """Run a page's commands with this Python and its `nnlab`, and return what they print."""
    paths = {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(ROOT)}
    joined = {name: os.pathsep.join([p, os.environ.get(name, "")]) for name, p in paths.items()}
    done = subprocess.run(
        ["sh", "-ec", commands], capture_output=True, text=True, env=os.environ | joined
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", [path for path in PAGES if path.stem in TUTORIALS])
def test_a_tutorial_is_as_short_as_it_says(path):
    text = path.read_text()
    blocks = [block for language, block in FENCES.findall(text) if language == "python"]
    code = [line for line in "".join(blocks).splitlines() if line.strip()]
    code = [line for line in code if not line.lstrip().startswith(("#", '"""'))]
    assert max(map(len, code)) <= 100
    if said := re.search(r"^# .* in (\d+) lines$", text, flags=re.MULTILINE):
        assert len(code) <= int(said[1])


def _save_resnet18() -> None:
    """Save weights as PyTorch would, for the page that borrows them."""
    import jax
    import jax.numpy as jnp
    import torch

    from nnlab.files import lend
    from nnlab.models import resnet18
    from nnlab.vision.resnet import torch_names

    model = resnet18()
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    arrays = lend(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes), torch_names(model))
    torch.save({name: torch.tensor(array) for name, array in arrays.items()}, "resnet18.pth")


@by_name
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        assert "://" in link or (path.parent / link).exists(), link


@by_name
def test_named_files_and_modules_exist(path):
    text = path.read_text()
    for name in re.findall(r"`((?:docs|experiments|nnlab|tests)/(?!_build)[\w/.]+)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\{py:mod\}`(nnlab[\w.]*)`", text):
        assert importlib.util.find_spec(name), name


def test_what_a_container_is_built_from_is_there():
    kept = re.findall(r"^!(.+)", (ROOT / ".dockerignore").read_text(), flags=re.MULTILINE)
    assert {"nnlab", "pyproject.toml", "setup.py"} < {*kept}
    assert all((ROOT / name).exists() for name in kept)


@by_name
def test_commands_exist_with_their_options(path):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    files = [*(ROOT / "nnlab" / "runs").glob("*.py"), ROOT / "nnlab" / "vision" / "image_run.py"]
    files.append(ROOT / "experiments" / "detection" / "learning.py")
    shared = "".join(file.read_text() for file in files)
    for language, block in FENCES.findall(path.read_text()):
        if language in ("python", "yaml"):
            continue
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            line, _, _ = line.partition("#")
            for target in re.findall(r"^make ([\w-]+)", line):
                assert target in targets, line
            for extra in re.findall(r"\.\[(\w+)\]", line):
                assert extra in extras["optional-dependencies"], line
            if command := re.search(
                r"python (experiments/\S+\.py)|(?:python -m |^)nnlab (?!sweep)(\w+)", line
            ):
                script = ROOT / (command[1] or f"nnlab/commands/{command[2]}.py")
                source = script.read_text() + shared
                for option in re.findall(r" --([\w-]+)", line[command.end() :]):
                    field = option.removeprefix("no-").replace("-", "_")
                    assert re.search(rf"^    {field}: ", source, flags=re.MULTILINE), line


def test_every_arithmetic_is_in_the_table():
    text = (ROOT / "docs" / "arithmetics.md").read_text()
    names = [n for n, each in vars(arithmetics).items() if isinstance(each, arithmetics.Arithmetic)]
    for name in [*names, "lp_adder", "dorefa", "in_format", "of_product"]:
        assert re.search(rf"`{name}\b", text), name


def test_every_script_has_an_answer(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    generate = importlib.import_module("generate")
    for topic in generate.TOPICS:
        for script in generate.scripts(ROOT / "experiments" / topic):
            assert script.answer and script.commands, script.path
    assert sys.modules["generate"] is generate
