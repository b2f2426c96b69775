"""Hints for misspelt words."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


_LISTED = 20
_LONGEST = 1000
"""Characters of a word to compare. Comparing one of 40 MB, which a message may hold, takes 4 s."""


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint: the known word closest to `name`, or the first of them when none is close."""
    names = sorted(known)
    lowered = {word.lower(): word for word in names}
    comparable = name.lower() if len(name) <= _LONGEST else ""
    if near := difflib.get_close_matches(comparable, lowered, n=1, cutoff=0.5):
        return f'did you mean "{lowered[near[0]]}"?'
    more = [f"{len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return f"known: {', '.join(names[:_LISTED] + more) or 'none'}"
