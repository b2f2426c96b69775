"""On which line of a TOML text a key stands; tomllib does not tell."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HEADER = re.compile(r"\s*(\[.+\])\s*(#.*)?$")
_KEY = re.compile(r"""\s*((?:"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_\-.\s])+?)\s*=""")


def line_of(text: str, path: Sequence[object]) -> int:
    """Return the 1-based line of the key at `path`, or of its nearest parent that has a line.

    A key inside an inline table or an array counts as its parent. `text` must be valid TOML.
    """
    wanted = tuple(str(part) for part in path)
    best, found = 0, 1
    for number, key in _keys(text):
        shared = len(key) if key == wanted[: len(key)] else 0
        # A header such as [a.b] also opens "a", when nothing nearer does.
        if not shared and wanted == key[: len(wanted)] and best < len(wanted):
            shared = len(wanted)
        if shared > best:
            best, found = shared, number
    return found


def _keys(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            path = _path(header[1])
            if path:
                table = path
                yield number, table
        elif key := _KEY.match(line):
            path = _path(f"{key[1]} = 0")
            if path:
                yield number, table + path


def _path(statement: str) -> tuple[str, ...]:
    try:
        value: Any = tomllib.loads(statement)
    except tomllib.TOMLDecodeError:  # a line inside a multi-line string
        return ()
    path: list[str] = []
    while value:
        if isinstance(value, list):
            value = value[0]
            continue
        key, value = next(iter(value.items()))
        path.append(key)
    return tuple(path)
