"""Pages: text stays text, and a page is whole or what it was."""

from nnlab.figures.page import (
    bullets,
    heading,
    paragraph,
    table,
    verbatim,
    write_page,
)


def test_text_is_escaped_and_kept():
    assert verbatim("if (a < b)\n    c & d;") == "<pre>if (a &lt; b)\n    c &amp; d;</pre>"
    assert heading("<b>") == "<h2>&lt;b&gt;</h2>" and paragraph("a&b") == "<p>a&amp;b</p>"
    assert bullets(["<", "x"]) == "<ul><li>&lt;</li><li>x</li></ul>"
    assert table([]) == ""
    assert '<td class="number">1,234</td>' in table([{"n": 1234}])


def test_sections_stand_in_their_order(tmp_path):
    path = tmp_path / "new" / "page.html"
    sections = [heading("First"), paragraph("text"), heading("Second")]
    for title in ("Old", "A & B"):
        write_page(path, title=title, provenance={"seed": 1}, sections=sections)
    text = path.read_text()
    places = [text.index(part) for part in ("<h1>A &amp; B</h1>", "<code>1</code>", *sections)]
    assert places == sorted(places) and "Old" not in text
    assert [each.name for each in path.parent.iterdir()] == ["page.html"]
