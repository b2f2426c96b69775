"""What the router's TOML files share: they are read, and their mistakes listed, in one way."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import tomllib

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class FileError(ValueError):
    """A file cannot be used. The text lists all mistakes, and repeats no value of the file.

    Attributes:
        source: the file.
        mistakes: one line for each mistake: the dotted path of the key, and what to fix.
    """

    def __init__(self, source: str, mistakes: Sequence[str]) -> None:
        self.source = source
        self.mistakes = tuple(mistakes)
        if len(mistakes) == 1:
            text = f"{source}: {mistakes[0]}"
        else:
            text = "\n  ".join([f"{source} has {len(mistakes)} mistakes:", *mistakes])
        super().__init__(text)


def read(path: Path, error: type[FileError] = FileError) -> str:
    """Return the text of a file; raise `error` if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as cause:
        raise error(str(path), [f"cannot be read: {cause.strerror}"]) from cause
    except UnicodeDecodeError as cause:
        raise error(str(path), ["not UTF-8 text; save it as UTF-8"]) from cause


def parse(text: str, source: str, error: type[FileError] = FileError) -> dict[str, Any]:
    """Return the tables of a TOML text; raise `error`, which names the line, if it is not TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as cause:
        what, _, where = str(cause).partition(" (at ")
        found = re.match(r"line (\d+)", where)
        line = found[1] if found else text.count("\n") + 1  # "end of document"
        raise error(source, [f"line {line}: not valid TOML: {what}"]) from cause


def dotted(path: Sequence[str]) -> str:
    """Return a key path in TOML's notation."""
    return ".".join(
        part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part) for part in path
    )
