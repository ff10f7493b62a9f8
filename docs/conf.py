"""Settings of the documents' site, which `make docs` builds into docs/_build.

Four things are written before Sphinx reads its sources, all of them ignored by git: a page for
each module of nnlab (docs/api), a page of results for each topic of the experiments (docs/results),
the table of old import paths (docs/moved.md), and the playground (docs/_static/playground.html).
"""

import importlib
import pkgutil
import re
import sys
from pathlib import Path

import mathjax
from docutils import nodes
from docutils.parsers.rst.states import Inliner
from sphinx.addnodes import pending_xref

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

import nnlab  # noqa: E402
from nnlab import _moved  # noqa: E402
from nnlab.playground.page import page as playground  # noqa: E402

project = "nnlab"
author = "the nnlab authors"
copyright = author
version = release = nnlab.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "moved.md"]
default_role = "py:obj"  # `nnlab.ops` in a docstring is a link where there is something to link to
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints_format = "short"
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_param = False  # or `strides, padding:` would be read as a type and a name
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_attr_annotations = False
maximum_signature_line_length = 88
add_module_names = False

html_theme = "sphinx_book_theme"
html_title = "nnlab"
# MathJax lies beside the pages: they need no network. One file, which draws without fonts.
html_static_path = ["_static", f"{Path(mathjax.__file__).parent}/static/mathjax/es5/tex-svg.js"]
mathjax_path = "tex-svg.js"
html_css_files = ["nnlab.css"]
html_theme_options = {"show_toc_level": 2, "navbar_persistent": []}


def write_api() -> None:
    """Write a page for each room of nnlab and one for each module, which only its room links to."""
    pages = {}
    rooms = [m.name for m in pkgutil.iter_modules(nnlab.__path__, "nnlab.") if m.ispkg]
    for room in ("nnlab", *rooms):
        package = importlib.import_module(room)
        names = [m.name for m in pkgutil.iter_modules(package.__path__, f"{room}.")]
        modules = [n for n in names if n not in rooms and not n.rsplit(".", 1)[1].startswith("_")]
        lines = [room, "=" * len(room), "", f".. automodule:: {room}", "   :no-members:"]
        exports = {name: getattr(package, name) for name in getattr(package, "__all__", ())}
        homes = {name: str(getattr(value, "__module__", "")) for name, value in exports.items()}
        objects = [name for name in exports if homes[name].startswith("nnlab.")]
        values = [name for name in exports if not hasattr(exports[name], "__name__")]
        if exports:
            lines += _section("Exports", [f"~{homes[n]}.{n}" for n in objects if n not in values])
        if values:
            lines += ["", f"Values: {', '.join(f'`{name}`' for name in values)}."]
        if room == "nnlab":
            lines += ["", ".. toctree::", "   :maxdepth: 1", "", *(f"   {name}" for name in rooms)]
        lines += _section("Modules", modules)
        pages[DOCS / "api" / f"{room}.rst"] = "\n".join(lines) + "\n"
        for name in modules:
            lines = [":orphan:", "", name, "=" * len(name), "", f".. automodule:: {name}", ""]
            pages[DOCS / "api" / f"{name}.rst"] = "\n".join(lines)
    for page in {*(DOCS / "api").glob("*.rst")} - {*pages}:  # of modules that are gone
        page.unlink()
    for page, text in pages.items():
        _write(page, text)


def _section(title: str, names: list[str]) -> list[str]:
    lines = ["", title, "-" * len(title), "", ".. currentmodule:: None", ".. autosummary::"]
    return [*lines, "   :nosignatures:", "", *(f"   {name}" for name in names)]


def write_results() -> None:
    """Copy the experiments' README files, with links that hold from where the copies lie."""
    index = (ROOT / "experiments" / "README.md").read_text()
    topics = re.findall(r"\]\((\w+)/README.md\)", index)
    toctree = "\n".join(["", "```{toctree}", ":hidden:", *topics, "```", ""])
    index = re.sub(r"\((\w+)/README.md\)", r"(\1.md)", index) + toctree
    _write(DOCS / "results" / "index.md", _from_docs(index, "experiments"))
    for topic in topics:
        text = (ROOT / "experiments" / topic / "README.md").read_text()
        _write(DOCS / "results" / f"{topic}.md", _from_docs(text, f"experiments/{topic}"))


def _from_docs(text: str, folder: str) -> str:
    """Return a document of `folder` with links from docs/results to the files beside it."""
    return re.sub(r"\]\((?!https?:|#|\w+\.md)", f"](../../{folder}/", text)


def to_results(app, docname: str, source: list[str]) -> None:
    """Lead links to the experiments' README files to their copies."""
    source[0] = source[0].replace("(../experiments/README.md)", "(results/index.md)")
    source[0] = re.sub(r"\(../experiments/(\w+)/README.md\)", r"(results/\1.md)", source[0])


def write_moved() -> None:
    """Write the table of old import paths and the new ones."""
    rows = [(old, new) for old, new in _moved.MODULES.items()]
    rows += [(f"{old}.{name}", f"{new}.{name}") for (old, name), new in _moved.NAMES.items()]
    lines = [f"| `{old}` | `{new}` |" for old, new in sorted(rows)]
    _write(DOCS / "moved.md", "\n".join(["| old | new |", "|---|---|", *lines]) + "\n")


def _write(path: Path, text: str) -> None:
    """Write a file, unless it says the same already: Sphinx reads anew what has been written."""
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def to_home(app, env, node, contnode):
    """Lead a name of a room's face, `nnlab.optim.bop`, to where it is defined and documented."""
    room, _, name = node.get("reftarget", "").rpartition(".")
    home = getattr(getattr(sys.modules.get(room), name, None), "__module__", room)
    if home == room:
        return None
    domain, where = env.domains.python_domain, f"{home}.{name}"
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", where, node, contnode)


def without_words(app, doctree) -> None:
    """Read the words of a shape, `[..., out]` of a return value, as words.

    Sphinx looks for each of them among all attributes: `out` would lead to some command's option.
    """
    for node in list(doctree.findall(pending_xref)):
        if node.get("refspecific") and re.fullmatch("[a-z_]+", node["reftarget"]):
            node.replace_self(node.children)


def plain(self: Inliner, match: re.Match, lineno: int) -> tuple:
    """Read a character that starts some markup as itself.

    Docstrings are prose with mathematics: |w| is an absolute value, a * b a product and ADDER_ a
    part of a name, where RST would see a substitution, an emphasis and a reference.
    """
    part = "start" if match["start"] else "whole"
    if re.match(r"\*\w[\w -]*\*(?!\w)", match.string[match.start(part) :]):  # *so*
        return self.emphasis(match, lineno)
    start, end = match.span(part)
    return match.string[:start], [nodes.Text(match[part])], match.string[end:], []


def as_rst(app, what, name, obj, options, lines: list[str]) -> None:
    """Turn the light markup of a docstring into RST.

    Indented blocks are code, `names`s may have a plural, and the number of an equation, far to the
    right of it, is a part of the equation.
    """
    marked: list[str] = []
    before, in_equation = "", False
    for line in lines:
        deeper = _indent(line) >= _indent(before) + 4 and marked and not marked[-1].strip()
        if line.strip() and deeper and not before.lstrip().startswith(("..", "- ", "* ", ":")):
            marked += [f"{' ' * _indent(before)}::", ""]
        before = line if line.strip() else before
        if in_equation := line.strip() and (in_equation or line.lstrip().startswith(".. math::")):
            line = re.sub(r",?\s{3,}\((\d+\w?)\)$", r" \\qquad (\1)", line)
        marked.append(re.sub(r"(`[^`\s][^`]*`)(?=\w)", r"\1\\ ", line))
    lines[:] = marked


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def setup(app) -> None:
    app.connect("source-read", to_results)
    app.connect("missing-reference", to_home)
    app.connect("doctree-read", without_words)
    app.connect("autodoc-process-docstring", as_rst, priority=400)  # before napoleon
    Inliner.dispatch |= dict.fromkeys(("|", "*", "_", "__", "]_"), plain)
    write_api()
    write_results()
    write_moved()
    _write(DOCS / "_static" / "playground.html", playground())
