"""Files with bearer tokens, one on each line, which are read again when they change."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)

CHECK_INTERVAL = 1.0
"""Seconds between two looks at a file."""

SIZE_LIMIT = 64 * 1024
TOKEN_LIMIT = 4096


class TokenFileError(ValueError):
    """A file cannot be used; the text names the option that it was given with, and no token."""


class TokenFile:
    """The tokens of a file. It may be used from any thread.

    Empty lines and lines that begin with `#` do not count. Who sends a token sends the first one;
    who checks accepts any of them, so that a token can be replaced without a gap: append the new
    one where tokens are checked, send it, then remove the old one. A file that becomes unusable is
    logged, and the tokens of before stay in use.

    Args:
        path: the file.
        option: the option that names it, for errors.

    Raises:
        TokenFileError: it cannot be used.
    """

    def __init__(self, path: Path, option: str = "--token-file") -> None:
        self._path = path
        self._option = option
        self._lock = threading.Lock()
        self._version = _version(path)
        self._tokens = self._read()
        self._next = time.monotonic() + CHECK_INTERVAL

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens; at least one."""
        if time.monotonic() >= self._next:
            with self._lock:
                self._refresh()
        return self._tokens

    @property
    def header(self) -> tuple[str, str]:
        """The metadata that shows the first token."""
        return ("authorization", f"Bearer {self.tokens[0]}")

    def _refresh(self) -> None:
        self._next = time.monotonic() + CHECK_INTERVAL
        version = _version(self._path)
        if version == self._version:
            return
        self._version = version
        try:
            self._tokens = self._read()
        except TokenFileError as error:
            _log.warning("%s; the tokens of before stay in use", error)

    def _read(self) -> tuple[str, ...]:
        where = f"{self._option} {self._path}"
        try:
            with self._path.open("rb") as file:
                data = file.read(SIZE_LIMIT + 1)
                mode = os.fstat(file.fileno()).st_mode
        except OSError as error:
            raise TokenFileError(f"{where} cannot be read: {error.strerror}") from error
        if len(data) > SIZE_LIMIT:
            raise TokenFileError(f"{where} has more than {SIZE_LIMIT // 1024} KiB")
        tokens = tuple(_lines(data))
        if not tokens:
            raise TokenFileError(f"{where} has no token; write one on a line")
        if not all(map(_is_token, tokens)):
            raise TokenFileError(
                f"{where} has a line that is no token: up to {TOKEN_LIMIT} printable ASCII "
                "characters without spaces"
            )
        if os.name == "posix" and mode & stat.S_IROTH:
            _log.warning("others may read %s; chmod o-r it", where)
        return tokens


def _lines(data: bytes) -> Iterator[str]:
    for line in data.decode("latin-1").splitlines():
        text = line.strip()
        if text and not text.startswith("#"):
            yield text


def _is_token(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text and len(text) <= TOKEN_LIMIT


def _version(path: Path) -> tuple[int, ...]:
    """Return what differs when a file was changed or replaced; () if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns
