"""The file tokens.toml: who may call, register nodes, and operate.

[tokens.web]
role = "caller"                    # or roles = ["caller", "operator"]
models = ["tiny*", "small"]        # the models it may call; without this, all of them
sha256 = "9f86d081884c7d659a2f..." # of the token
expires = 2027-01-01T00:00:00Z     # optional

[tokens.gpu]
role = "node"
nodes = ["gpu-*"]                  # the names that its nodes may have; without this, any
sha256 = "60303ae22b998861bce3..."

`grpcerrors-router token new` writes such entries.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from grpcerrors_router.closest import closest
from grpcerrors_router.config.toml_file import FileError, dotted, parse, read
from grpcerrors_router.security.tokens import Role, Token, Tokens
from grpcerrors_router.validation import NAME_LIMIT, is_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails

    Mistake = tuple[tuple[str, ...], str]


class TokensError(FileError):
    """A tokens file cannot be used; see FileError."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    sha256: str
    role: str | None = None
    roles: list[str] | None = None
    models: list[str] | None = None
    nodes: list[str] | None = None
    expires: Any = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    tokens: dict[str, _Entry] = {}


_WORDS = {
    "dict_type": "must be a table",
    "list_type": "must be an array of strings",
    "model_type": "must be a table",
    "string_type": "must be a string",
}
_KNOWN = {1: _File.model_fields, 3: _Entry.model_fields}
_NO_HASH = "missing; grpcerrors-router token new makes a token and writes its hash"
_HASH = re.compile(r"[0-9a-f]{64}")
_OF_ROLE = {"models": Role.CALLER, "nodes": Role.NODE}


def read_tokens(path: Path) -> Tokens:
    """Return the tokens in the file at `path`.

    Raises:
        TokensError: the file cannot be read, or it has mistakes.
    """
    return parse_tokens(read(path, TokensError), str(path))


def parse_tokens(text: str, source: str = "tokens.toml") -> Tokens:
    """Return the tokens in a TOML text.

    A file without tokens is valid, since the last one may have been revoked.

    Args:
        text: the contents of the file.
        source: the name of the file in errors.

    Raises:
        TokensError: lists all mistakes, and repeats no value.
    """
    document = parse(text, source, TokensError)
    mistakes = [f"{dotted(path)}: {what}" if path else what for path, what in _mistakes(document)]
    if mistakes:
        raise TokensError(source, mistakes)
    entries = _File.model_validate(document).tokens
    return Tokens(_token(name, entry) for name, entry in entries.items())


def _token(name: str, entry: _Entry) -> Token:
    def patterns(texts: list[str] | None) -> tuple[str, ...] | None:
        return None if texts is None else tuple(texts)

    return Token(
        name=name,
        roles=frozenset(map(Role, entry.roles or [entry.role or ""])),
        digest=bytes.fromhex(entry.sha256),
        models=patterns(entry.models),
        nodes=patterns(entry.nodes),
        expires=None if entry.expires is None else _moment(entry.expires),
    )


def _mistakes(document: dict[str, Any]) -> Iterator[Mistake]:
    yield from _structure(document)
    tokens = document.get("tokens")
    if isinstance(tokens, dict):
        for name, entry in tokens.items():
            if isinstance(entry, dict):
                yield from _contents(name, entry)
        yield from _twice(tokens)


def _structure(document: dict[str, Any]) -> Iterator[Mistake]:
    try:
        _File.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        misspelt = {each["loc"][:-1] for each in found if each["type"] == "extra_forbidden"}
        for each in found:
            # A misspelt key also counts as the missing one; the misspelling says more.
            if each["type"] != "missing" or each["loc"][:-1] not in misspelt:
                yield tuple(map(str, each["loc"])), _words(each)


def _words(error: ErrorDetails) -> str:
    path = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        return f"unknown key; {closest(path[-1], _KNOWN[len(path)])}"
    if error["type"] == "missing":
        return _NO_HASH
    return _WORDS.get(error["type"], error["msg"])


def _contents(name: str, entry: dict[str, Any]) -> Iterator[Mistake]:
    at = ("tokens", name)
    if not is_name(name):
        yield at, f"the name must be 1 to {NAME_LIMIT} printable characters"
    digest, expires = entry.get("sha256"), entry.get("expires")
    if isinstance(digest, str) and not _HASH.fullmatch(digest):
        # Its text is not repeated: it may be the token itself, pasted in the wrong place.
        yield (*at, "sha256"), "must be the token's SHA-256, 64 lower-case hexadecimal digits"
    if expires is not None and _moment(expires) is None:
        yield (*at, "expires"), "must be a date, or a time with an offset: 2027-01-01T00:00:00Z"
    yield from _role_mistakes(at, entry)


def _role_mistakes(at: tuple[str, ...], entry: dict[str, Any]) -> Iterator[Mistake]:
    known = ", ".join(f'"{role}"' for role in Role)
    if "role" in entry and "roles" in entry:
        yield (*at, "roles"), "remove it, or role: one of them is enough"
    elif "role" not in entry and "roles" not in entry:
        yield (*at, "role"), f"missing; add role, one of {known}"
    key = "roles" if "roles" in entry else "role"
    value = entry.get(key)
    given = value if isinstance(value, list) else [value]
    texts = [each for each in given if isinstance(each, str)]
    if value == []:
        yield (*at, key), f"must not be empty; use {known}"
    for text in texts:
        if text not in tuple(Role):
            yield (*at, key), f"unknown role; {closest(text, Role)}"
    for key, role in _OF_ROLE.items():
        patterns = entry.get(key)
        if patterns is not None and role not in texts:
            yield (*at, key), f'only a token with role "{role}" has {key}'
        if patterns == [] or (isinstance(patterns, list) and "" in patterns):
            yield (*at, key), 'must not be empty; leave it out for all, or use patterns like "a*"'


def _twice(tokens: Mapping[str, Any]) -> Iterator[Mistake]:
    seen: dict[str, str] = {}
    for name, entry in tokens.items():
        digest = entry.get("sha256") if isinstance(entry, dict) else None
        if isinstance(digest, str) and _HASH.fullmatch(digest):
            if digest in seen:
                where = dotted(("tokens", seen[digest]))
                yield ("tokens", name, "sha256"), f"is that of {where}; give each its own token"
            seen.setdefault(digest, name)


def _moment(value: object) -> float | None:
    """Return a TOML date or time as Unix time; None if it is neither, or has no offset."""
    if isinstance(value, dt.datetime):
        return None if value.tzinfo is None else value.timestamp()
    if isinstance(value, dt.date):
        start = dt.datetime.combine(value, dt.time(), dt.UTC)
        return start.timestamp()
    return None
