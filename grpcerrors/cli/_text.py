"""Text that is safe to print."""

from __future__ import annotations


def printable(text: str) -> str:
    """Escape control characters: a server's text is not trusted."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
