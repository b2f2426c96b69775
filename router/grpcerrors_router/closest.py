"""Hints for misspelt words."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


_LISTED = 20


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint: the known word closest to `name`, or the first of them when none is close."""
    names = sorted(known)
    lowered = {word.lower(): word for word in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    if near:
        return f'did you mean "{lowered[near[0]]}"?'
    more = [f"{len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return f"known: {', '.join(names[:_LISTED] + more) or 'none'}"
