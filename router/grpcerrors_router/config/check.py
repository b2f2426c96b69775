"""All mistakes in a models.toml, with the lines that they are on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tomllib

from grpcerrors_router.config.models_toml import (
    ModelsError,
    mistakes_in,
    parse_models,
)
from grpcerrors_router.config.toml_file import dotted, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from grpcerrors_router.entities import ModelSpec

_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LineMistake:
    """A mistake on a line, from 1; the line is quoted."""

    line: int
    quoted: str
    what: str

    def shown(self, source: str) -> str:
        """Return the mistake and its line, as compilers print them."""
        number = str(self.line)
        margin = " " * len(number)
        text = self.quoted.strip()
        return f"{source}:{number}: {self.what}\n{margin} |\n{number} | {text}\n{margin} |"


def check_models(path: Path) -> tuple[list[LineMistake], dict[str, ModelSpec]]:
    """Return all mistakes in a models.toml, in the order of its lines, or its models.

    Raises:
        ModelsError: the file cannot be read.
    """
    text = read(path, ModelsError)
    lines = text.splitlines() or [""]
    statements = [*_statements(lines)]
    found = [(number, what) for number, _, what in statements if what]
    if not found:
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:  # a key that occurs twice, for example
            found = [(_line_of(error, len(lines)), _syntax(error))]
        else:
            places = [(number, path) for number, keys, _ in statements for path in keys]
            found = [
                (_locate(places, path), f"{dotted(path)}: {what}" if path else what)
                for path, what in mistakes_in(document)
            ]
    if not found:
        return [], parse_models(text, str(path))
    found.sort(key=lambda each: each[0])
    return [LineMistake(number, lines[number - 1], what) for number, what in found], {}


def _statements(lines: Sequence[str]) -> Iterator[tuple[int, list[_Path], str]]:
    """Yield each statement: its first line, the key paths in it, and what is wrong with it.

    A statement that cannot be parsed by itself is continued on the lines below it, if that helps.
    """
    table: _Path = ()
    number = 0
    while number < len(lines):
        end, document, error = _parsed(lines, number)
        if error is not None:
            yield number + 1, [], _syntax(error)
        elif document:
            keys = [*_paths(document)]
            if lines[number].lstrip().startswith("["):
                table = max(keys, key=len)
                yield number + 1, [table], ""
            else:
                yield number + 1, [(*table, *key) for key in keys], ""
        number = end


def _parsed(
    lines: Sequence[str], start: int
) -> tuple[int, dict[str, Any], tomllib.TOMLDecodeError | None]:
    """Return the line after a statement, and the statement or the error on its first line."""
    first: tomllib.TOMLDecodeError | None = None
    for end in range(start + 1, len(lines) + 1):
        try:
            return end, tomllib.loads("\n".join(lines[start:end])), None
        except tomllib.TOMLDecodeError as error:
            first = first or error
            if not _is_open(lines[start]):
                break
    return start + 1, {}, first


def _is_open(line: str) -> bool:
    """Return whether a statement may continue on the next line: in an array or a long string."""
    value = line.partition("=")[2]
    return "[" in value or '"""' in value or "'''" in value


def _paths(document: dict[str, Any], at: _Path = ()) -> Iterator[_Path]:
    for key, value in document.items():
        yield (*at, key)
        if isinstance(value, dict):
            yield from _paths(value, (*at, key))


def _locate(places: Sequence[tuple[int, _Path]], path: _Path) -> int:
    """Return the first line with the longest part of a key path."""

    def common(known: _Path) -> int:
        pairs = zip(known, path, strict=False)
        return next((n for n, (one, other) in enumerate(pairs) if one != other), len(known))

    return max(places, key=lambda place: common(place[1]), default=(1, ()))[0]


def _syntax(error: tomllib.TOMLDecodeError) -> str:
    return f"not valid TOML: {str(error).partition(' (at ')[0]}"


def _line_of(error: tomllib.TOMLDecodeError, last: int) -> int:
    words = str(error).partition(" (at line ")[2].partition(",")[0]
    return int(words) if words.isdecimal() else last
