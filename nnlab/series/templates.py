"""Log templates: what the lines that one statement of a program writes have in common.

    PacketResponder <*> for block <*> terminating

A template is the tokens of a line, separated by white space, with `<*>` for those that vary. Drain
(`pip install '.[series]'`) mines templates from example lines. Then they are frozen: new lines
are matched token by token, without Drain, and a line that fits no template is the event *unknown*.
Before both, everything that one of the `masks` (regular expressions) finds becomes `<*>`.

Only the miner of the package drain3 is used; its own files would have to be unpickled.

References:
    He, Zhu, Zheng and Lyu, Drain: an online log parsing approach with fixed depth tree, ICWS 2017;
    https://github.com/logpai/Drain3.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Sequence

from nnlab.errors import InputError, needs
from nnlab.series.records import Record

VARIES = "<*>"
HDFS_MASKS = (r"blk_-?\d+", r"(\d+\.){3}\d+(:\d+)?")
"""Block identifiers, and addresses with or without a port."""


@dataclasses.dataclass(frozen=True)
class Templates(Record):
    """Templates, and the masks that are applied before lines are compared with them.

    Attributes:
        templates: each once, its tokens separated by one blank; an event is a template's place.
        masks: regular expressions.
    """

    templates: tuple[str, ...]
    masks: tuple[str, ...] = ()

    def __post_init__(self):
        if len(set(self.templates)) < len(self.templates):
            raise InputError("a template comes twice, expected each once")
        for mask in self.masks:
            try:
                re.compile(mask)
            except re.error as error:
                raise InputError(f"mask {mask!r} is no regular expression: {error}") from error

    @property
    def unknown(self) -> int:
        """The event of a line that fits no template: the number of templates."""
        return len(self.templates)

    def event(self, content: str) -> int:
        """Return the template that the line fits, the one in which the fewest tokens vary."""
        tokens = masked(content, self.masks).split()
        first = tokens[0] if tokens else ""
        found = [
            (varying, event)
            for start in {first, VARIES}
            for varying, event, template in self._by_start.get((len(tokens), start), ())
            if all(a in (b, VARIES) for a, b in zip(template, tokens, strict=True))
        ]
        return min(found)[1] if found else self.unknown

    @functools.cached_property
    def _by_start(self) -> dict[tuple[int, str], list[tuple[int, int, list[str]]]]:
        """Templates by number of tokens and first token: how many tokens vary, event, tokens."""
        index: dict[tuple[int, str], list[tuple[int, int, list[str]]]] = {}
        for event, template in enumerate(self.templates):
            tokens = template.split()
            start = (len(tokens), tokens[0] if tokens else "")
            index.setdefault(start, []).append((tokens.count(VARIES), event, tokens))
        return index


def masked(content: str, masks: Sequence[str]) -> str:
    """Replace all that the masks find in a line, one mask after the other, by `<*>`."""
    for mask in masks:
        content = re.sub(mask, VARIES, content)
    return content


def mine_templates(
    contents: Iterable[str],
    masks: Sequence[str] = (),
    *,
    similarity: float = 0.5,
    depth: int = 4,
) -> Templates:
    """Mine the templates of example lines.

    Args:
        contents: lines without time, level and so on.
        masks: regular expressions for what always varies, such as `HDFS_MASKS`.
        similarity: share of equal tokens from which Drain puts a line under a template.
        depth: levels of Drain's tree, at least 3; depth - 3 first tokens must be equal.

    Raises:
        InputError: drain3 is not installed, there are no lines, or a mask is no regular expression.
    """
    with needs("series"):
        from drain3.drain import Drain
    Templates((), tuple(masks))  # checks them
    drain = Drain(depth=depth, sim_th=similarity, param_str=VARIES)
    for content in contents:
        drain.add_log_message(masked(content, masks))
    found = (cluster.get_template() for cluster in drain.clusters)
    templates = Templates(tuple(dict.fromkeys(found)), tuple(masks))
    if not templates.templates:
        raise InputError("there are no lines to mine templates from, expected at least one")
    return templates
