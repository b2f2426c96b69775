"""Parsing of load options: the "key:value" strings in ModelOptions.Options."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from grpcerrors_backends.model import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grpcerrors_protocol import backend_pb2 as pb


class Settings:
    """The load options of one LoadModel. Read each option once, then call `done`.

    The methods raise LoadError for an invalid value, and the constructor for an entry without a
    colon.
    """

    def __init__(self, options: pb.ModelOptions) -> None:
        self._left = _pairs(options)
        self._known: list[str] = []

    def text(self, key: str, default: str = "") -> str:
        """Return the text of an option."""
        self._known.append(key)
        return self._left.pop(key, default)

    def choice(self, key: str, default: str, choices: Iterable[str]) -> str:
        """Return an option whose value must be one of *choices*."""
        value = self.text(key, default)
        if value not in choices:
            message = f"{key}:{value} is not one of {', '.join(sorted(choices))}"
            raise LoadError(message)
        return value

    def number(
        self, key: str, default: float, *, low: float = -math.inf, high: float = math.inf
    ) -> float:
        """Return an option whose value must be a number from *low* to *high*."""
        text = self.text(key, str(default))
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            message = f"{key}:{text} is not a number from {low:g} to {high:g}"
            raise LoadError(message)
        return value

    def done(self) -> None:
        """Raise LoadError if any option was not read, so that a misspelt one is reported."""
        if self._left:
            known = ", ".join(self._known) or "none"
            message = (
                f"unknown load options {', '.join(sorted(self._left))}; known options: {known}"
            )
            raise LoadError(message)


def _pairs(options: pb.ModelOptions) -> dict[str, str]:
    settings = {}
    for entry in options.Options:
        key, colon, value = entry.partition(":")
        if not colon:
            message = f'Options entry {entry!r} is not of the form "key:value"'
            raise LoadError(message)
        settings[key.strip()] = value.strip()
    return settings
