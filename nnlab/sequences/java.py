r"""What of a Java source is code, and what is comment or literal.

The lexical rules are those of the Java Language Specification, section 3: comments of both kinds,
character, string and text-block literals with their escapes. What has no end runs to the end of its
line, a block comment or text block to the end of the file. Escapes such as `\u0022` are not
translated before, as a compiler would do; nobody writes a bracket or a quote in that way.
"""

import re

_TOKEN = re.compile(
    r"""
    (?P<comment> // [^\n]* | /\* .*? (?: \*/ | \Z ) )
    | \"{3} (?: \\. | . )*? (?: \"{3} | \Z )
    | " (?: \\[^\n] | [^"\\\n] )* ["\\]?
    | ' (?: \\[^\n] | [^'\\\n] )* ['\\]?
    """,
    re.DOTALL | re.VERBOSE,
)


def without_comments(source: str) -> str:
    """The source without its comments, trailing blanks and more than one blank line in a row."""

    def kept(token: re.Match) -> str:
        if token["comment"] is None:
            return token[0]
        around = source[max(0, token.start() - 1) : token.start()] + source[token.end() :][:1]
        return " " if re.fullmatch(r"\w\w", around) else ""

    text = re.sub(r"[ \t]+$", "", _TOKEN.sub(kept, source), flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def code_only(source: str) -> str:
    """The source, every character of a comment or literal a blank: as long as it was."""
    return _TOKEN.sub(lambda token: " " * len(token[0]), source)
