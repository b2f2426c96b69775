"""Hints for misspelt words."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint: the known word closest to `name`, or all of them when none is close."""
    names = sorted(known)
    lowered = {word.lower(): word for word in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f'did you mean "{lowered[near[0]]}"?' if near else f"known: {', '.join(names)}"
