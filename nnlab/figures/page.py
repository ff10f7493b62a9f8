"""An HTML page that needs nothing but itself, made of sections.

Figures are inline SVG whose text and lines take the page's colour, so one file reads in light mode,
in dark mode and on paper; nothing is fetched.
"""

import html
import io
import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from nnlab.errors import needs
from nnlab.figures.plots import INK, MINUS, RULE
from nnlab.paths import user_path, writing

with needs("figures"):
    import matplotlib
    from matplotlib.figure import Figure


def write_page(
    path: str | os.PathLike[str],
    *,
    title: str,
    provenance: Mapping[str, Any],
    sections: Sequence[str],
) -> None:
    """Write the page; an existing file is replaced only by a complete one.

    Args:
        path: the HTML file; missing folders are made.
        title: heading of the page.
        provenance: where the numbers come from: command, seed, time, hardware, versions.
        sections: results of the functions below, in order.

    Raises:
        InputError: the file cannot be written.
    """
    top = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="provenance">{_provenance(provenance)}</p>',
    ]
    body = "\n".join([*top, *sections])
    page = _PAGE.format(title=html.escape(title), style=_STYLE, body=body)
    target = user_path(path)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")
        partial.replace(target)


def heading(text: str) -> str:
    """Return a heading."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def verbatim(text: str) -> str:
    """Return text with its lines and blanks kept; long lines are broken."""
    return f"<pre>{html.escape(text)}</pre>"


def bullets(texts: Sequence[str]) -> str:
    """Return a list with one point for each plain text."""
    return f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in texts)}</ul>"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of rows with the same keys, which become its header; "" without rows."""
    if not rows:
        return ""
    header = "".join(_cell("th", key, like=value) for key, value in rows[0].items())
    body = ["".join(_cell("td", value, like=value) for value in row.values()) for row in rows]
    lines = "".join(f"<tr>{line}</tr>" for line in [header, *body])
    return f'<div class="wide"><table>{lines}</table></div>'


def picture(figure: Figure, label: str, caption: str) -> str:
    """Return a figure with its caption; screen readers read `label` aloud."""
    text = io.StringIO()
    nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    with matplotlib.rc_context({"svg.hashsalt": label}):
        figure.savefig(text, format="svg", transparent=True, metadata=nothing, dpi=200)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(RULE, "var(--rule)")
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
    return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _provenance(provenance: Mapping[str, Any]) -> str:
    def text(value):
        return ", ".join(map(" ".join, value.items())) if isinstance(value, Mapping) else str(value)

    return " · ".join(
        f"{html.escape(str(key))} <code>{html.escape(text(value))}</code>"
        for key, value in provenance.items()
    )


def _cell(tag: str, value: Any, like: Any) -> str:
    side = ' class="number"' if _is_number(like) else ""
    text = str(value)
    if _is_number(value):
        text = f"{value:,}" if isinstance(value, Integral) else f"{value:.4g}"
        text = text.replace("-", MINUS)
    return f"<{tag}{side}>{html.escape(text)}</{tag}>"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --ink: #24292f; --quiet: #59636e; --rule: #c9ced4;
  --paper: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe3e8; --quiet: #9aa4af; --rule: #444c56;
  --paper: #16191d; } }
body { max-width: 54rem; margin: 3rem auto; padding: 0 1.25rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; font-weight: 600; margin: 0 0 .4rem; }
h2 { font-size: 1.15rem; font-weight: 600; margin: 2.6rem 0 .8rem; break-after: avoid; }
.provenance, figcaption { color: var(--quiet); font-size: .85rem; }
code { font-family: ui-monospace, monospace; font-size: .95em; overflow-wrap: anywhere;
  color: var(--ink); }
figure { margin: 0; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { margin-top: .6rem; max-width: 44rem; }
pre { font-size: .85rem; line-height: 1.4; white-space: pre-wrap; overflow-wrap: anywhere;
  border-left: 3px solid var(--rule); padding-left: 1rem; }
ul { padding-left: 1.1rem; font-size: .92rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem;
  margin: .8rem 0; }
th, td { padding: .35rem 1.2rem .35rem 0; text-align: left; border-bottom: 1px solid var(--rule);
  vertical-align: top; }
.number { text-align: right; }
th { font-weight: 600; color: var(--quiet); }
td { overflow-wrap: break-word; max-width: 34rem; }
tr { break-inside: avoid; }
@media print { :root { color-scheme: light; --ink: #24292f; --quiet: #59636e; --rule: #c9ced4;
  --paper: #ffffff; font-size: 12px; } body { margin: 0; } .wide { overflow: visible; } }
"""
