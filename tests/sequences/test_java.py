"""What of a Java source is code: the rules one by one, and any text at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnlab.sequences.java import code_only, without_comments


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("a; // b )\nc;", "a;c;"),
        ("a /* ( \n * ( */ b", "ab"),
        ("a /* ( /* ( */ b )", "ab)"),
        ('f("}\\")") + g', "f()+g"),
        ("'\\'' + '{'", "+"),
        ('s = "/* no comment */"; }', "s=;}"),
        ('/* " */ }', "}"),
        ('x = """\n "quoted" { \\""" { """; }', "x=;}"),
        ('x = "no end {\n}', "x=}"),
        ("it's { \n }", "it}"),
        ("} /* no end { \n }", "}"),
        ('"a\\\\" }', "}"),
    ],
)
def test_code_by_hand(source, code):
    """Blanks left out; that every character keeps its place is tested below."""
    assert "".join(code_only(source).split()) == code


@given(st.text(alphabet="ab{}()\"'\\/*\n ", max_size=60))
def test_any_text_keeps_its_length_and_its_code(source):
    code = code_only(source)
    assert len(code) == len(source)
    assert all(c in (" ", s) for s, c in zip(source, code, strict=True))
    assert code_only(code) == code


def test_comments_are_taken_out():
    source = """/* licence
 * of many lines */
package a;

/** Of the class. */
@Yes
class A { // of the line
    // of nothing

    /* a */ String url = "http://a"; /* b */
    int/**/x = '"' /* " */ + 1;
}
"""
    assert (
        without_comments(source)
        == """package a;

@Yes
class A {

 String url = "http://a";
    int x = '"'  + 1;
}
""".replace("\n String", "\n     String")
    )
