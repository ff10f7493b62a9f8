"""The page: one HTML file that needs nothing but itself.

Its style and scripts are the files of `nnlab/playground/browser`; the functions that it computes
with are printed from nnlab (`nnlab.playground.functions`), and its tables are counted
(`nnlab.playground.tables`).
"""

import importlib.resources
import json
import os

from nnlab.files.container import replacing
from nnlab.paths import user_path
from nnlab.playground.functions import printed
from nnlab.playground.tables import tables

SCRIPTS = (
    *("engine", "address", "drawing", "hand", "panels"),
    *("changes", "building", "controls", "main"),
)


def page() -> str:
    """Return the page's HTML."""
    text = script(*SCRIPTS).replace("</script", "<\\/script")
    return _file("page.html").replace("/*STYLE*/", _file("page.css")).replace("/*SCRIPT*/", text)


def script(*names: str) -> str:
    """Return the tables, the printed functions, and the scripts of these names."""
    data = json.dumps(tables(), ensure_ascii=False)
    scripts = (_file(f"{name}.js") for name in names)
    return "\n".join([f"const TABLES = {data};", printed(), *scripts])


def write_page(path: str | os.PathLike[str]) -> None:
    """Write the page; an existing file is replaced only by a complete one.

    Raises:
        InputError: the file cannot be written.
    """
    text, target = page(), user_path(path)
    with replacing(target, overwrite=True) as partial:
        partial.write_text(text, encoding="utf-8")


def _file(name: str) -> str:
    return (importlib.resources.files("nnlab.playground") / "browser" / name).read_text("utf-8")
