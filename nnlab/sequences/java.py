r"""Tell the code of a Java source from its comments and literals.

The lexical rules are those of the Java Language Specification, section 3: comments of both kinds,
character, string and text-block literals with their escapes. A literal without an end runs to the
end of its line, a block comment or text block to the end of the file. Escapes such as `\u0022` are
not translated first, as a compiler would do; nobody writes a bracket or a quote in that way.
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
    """Remove comments, trailing blanks and all but one of successive blank lines."""

    def kept(token: re.Match) -> str:
        if token["comment"] is None:
            return token[0]
        around = source[max(0, token.start() - 1) : token.start()] + source[token.end() :][:1]
        return " " if re.fullmatch(r"\w\w", around) else ""

    text = re.sub(r"[ \t]+$", "", _TOKEN.sub(kept, source), flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def code_only(source: str) -> str:
    """Replace every character of comments and literals by a blank; the length stays."""
    return _TOKEN.sub(lambda token: " " * len(token[0]), source)
