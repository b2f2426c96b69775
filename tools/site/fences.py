"""The code blocks of a page.

After its language, the first line of a block may have the name of a file, which the block is the
text of, or `norun:` and the reason why no test runs the block. A block that has the name of a file
of the repository and no text stands for that file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_FENCE = re.compile(
    r"^(?P<marks>`{3,})(?P<language>[\w+-]*)(?: (?:norun: (?P<reason>[^\n]*)|(?P<name>\S+)))?\n"
    r"(?P<text>.*?)^(?P=marks)\n",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Fence:
    """A code block."""

    marks: str
    language: str
    reason: str
    """Why no test runs it, or "" if one does."""
    name: str
    """The file that it is the text of, or "" if it is none."""
    text: str


def split(page: str) -> Iterator[str | Fence]:
    """Yield the parts of a page in order: text, and code blocks."""
    end = 0
    for match in _FENCE.finditer(page):
        yield page[end : match.start()]
        yield Fence(**match.groupdict(default=""))
        end = match.end()
    yield page[end:]
