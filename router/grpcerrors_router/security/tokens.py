"""Tokens: what each one allows, and how a presented one is found.

A token has 256 random bits, so its plain SHA-256 cannot be guessed or reversed: a slow hash, as for
passwords, would only add cost to each call.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Patterns = tuple[str, ...]

PREFIX = "grt_"
"""Begins every token that `new_token` makes, so that secret scanners and people recognize one."""

TOKEN_LIMIT = 512
"""Characters of a token that are looked at; `new_token` makes 47."""


class Role(StrEnum):
    """What a token may be used for."""

    CALLER = "caller"
    NODE = "node"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Token:
    """What the owner of a token may do. The token itself is not stored.

    Attributes:
        name: its name in tokens.toml.
        roles: its roles.
        digest: the SHA-256 of the token.
        models: as a caller, it may call the models that fit one of these patterns; None for all.
        nodes: as a node, it may have the names that fit one of these patterns; None for all.
        expires: the Unix time from which it is no longer valid; None for never.
    """

    name: str
    roles: frozenset[Role]
    digest: bytes = field(repr=False)
    models: Patterns | None = None
    nodes: Patterns | None = None
    expires: float | None = None

    def may_call(self, model: str) -> bool:
        """Return whether its owner may call a model, known or not."""
        return Role.CALLER in self.roles and fits(model, self.models)

    def may_be(self, node: str) -> bool:
        """Return whether its owner may register a node of that name."""
        return Role.NODE in self.roles and fits(node, self.nodes)

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= time.time()


def fits(name: str, patterns: Patterns | None) -> bool:
    """Return whether a name fits one of the patterns; None fits every name."""
    return patterns is None or any(_compiled(each).match(name) for each in patterns)


@functools.lru_cache(4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern in which `*` stands for any characters and all else for itself.

    fnmatch makes each `*` atomic, so that no name makes a match take more than linear time.
    """
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]").replace("?", "[?]")))


class Tokens:
    """The tokens of a file."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens = tuple(tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def __iter__(self) -> Iterator[Token]:
        return iter(self._tokens)

    def find(self, token: str) -> Token | None:
        """Return what is known about a token, expired or not; None for an unknown one.

        It compares with every hash in constant time, so the time it takes shows neither which
        token it is, nor how much of it is right.
        """
        digest = digest_of(token)
        found = None
        for each in self._tokens:
            if hmac.compare_digest(each.digest, digest):
                found = each
        return found


def digest_of(token: str) -> bytes:
    """Return the SHA-256 of a token."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def new_token() -> str:
    """Return a new random token."""
    return PREFIX + secrets.token_urlsafe(32)
