"""Access: which token a call was made with, by the tokens file, which it follows."""

from __future__ import annotations

import asyncio
import os
import stat
from typing import TYPE_CHECKING

import structlog

from grpcerrors_router.errors import Unauthenticated
from grpcerrors_router.security.tokens import TOKEN_LIMIT, Role, Token
from grpcerrors_router.security.tokens_toml import TokensError, read_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_log = structlog.get_logger("router.security")

CHECK_INTERVAL = 1.0
"""Seconds between two looks at the tokens file."""

KEPT_HEADERS = 1024
"""Headers of which the token is remembered: a token may be written in several ways."""

_SCHEME = "bearer "


class Access:
    """Finds the token of each call.

    A file that becomes invalid is logged, and the tokens of before stay valid. Calls in flight are
    not ended when their token is revoked.

    Args:
        path: the tokens file.

    Raises:
        TokensError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Token] = {}
        self._version = _version(path)
        self._tokens = read_tokens(path)
        self._warn()

    def identify(self, metadata: Iterable[tuple[str, str | bytes]]) -> Token:
        """Return the token of a call.

        Raises:
            Unauthenticated: the call has none that is valid, or more than one.
        """
        sent = [value for key, value in metadata if key == "authorization"]
        if len(sent) != 1:
            raise Unauthenticated(
                "the call has several; send authorization once"
                if sent
                else "the call has none; send the metadata authorization: Bearer TOKEN (commands: "
                "--token-file FILE)"
            )
        header = sent[0]
        # A dictionary finds nothing by a part of the header, so the time tells nothing about it.
        token = self._found.get(header) if isinstance(header, str) else None
        if token is None:
            token = self._find(header)
        if token.expired:
            raise Unauthenticated("it has expired; make a new one with grpcerrors-router token new")
        return token

    def _find(self, header: str | bytes) -> Token:
        if not isinstance(header, str) or not header[: len(_SCHEME)].lower() == _SCHEME:
            raise Unauthenticated("the scheme must be Bearer; send authorization: Bearer TOKEN")
        sent = header[len(_SCHEME) :].strip(" ")
        found = self._tokens.find(sent) if len(sent) <= TOKEN_LIMIT else None
        if found is None:
            raise Unauthenticated(
                "the router does not know it; its tokens are in the file of serve --tokens"
            )
        if len(self._found) >= KEPT_HEADERS:
            self._found.clear()
        self._found[header] = found
        return found

    def read(self) -> Callable[[], None]:
        """Read the file again; return a function that puts it into effect.

        Raises:
            TokensError: it has mistakes; the tokens of before stay valid.
        """
        version = _version(self._path)
        try:
            tokens = read_tokens(self._path)
        except TokensError:
            self._version = version  # report the mistakes of one version once
            raise

        def apply() -> None:
            self._version, self._tokens = version, tokens
            self._found.clear()
            self._warn()
            _log.info("read the tokens", file=str(self._path), tokens=len(tokens))

        return apply

    def reload(self) -> None:
        """Read the file again, and put it into effect. Raises as `read`."""
        self.read()()

    async def watch(self) -> None:
        """Follow the file until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            if _version(self._path) != self._version:
                try:
                    self.reload()
                except TokensError as error:
                    _log.error(
                        "the tokens file has mistakes; the tokens of before stay valid",
                        file=error.source,
                        mistakes=error.mistakes,
                    )

    def _warn(self) -> None:
        if not len(self._tokens):
            _log.warning("the tokens file is empty: every call is refused", file=str(self._path))
        elif not any(Role.OPERATOR in token.roles for token in self._tokens):
            _log.info("no token has the role operator", file=str(self._path))
        if _is_shared(self._path):
            _log.warning(
                "others may read or change the tokens file; chmod o-rwx it", file=str(self._path)
            )


def _is_shared(path: Path) -> bool:
    try:
        return os.name == "posix" and bool(path.stat().st_mode & stat.S_IRWXO)
    except OSError:
        return False


def _version(path: Path) -> tuple[int, ...]:
    """Return what differs when a file was changed or replaced; () if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns
