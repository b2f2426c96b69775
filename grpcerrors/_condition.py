"""What a condition is: data from which one engine builds, sends and detects errors."""

from __future__ import annotations

import json
import pkgutil
import re
from dataclasses import dataclass, field
from functools import lru_cache
from string import Formatter
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

DOMAIN = "grpcerrors"

# With the reason, it fits into 255 bytes of a trailer, and it needs no encoding there.
_DOMAIN = re.compile(r"[!-~]{1,190}")
# AIP-193: at most 63 characters of this form.
_REASON = re.compile(r"[A-Z][A-Z0-9_]{1,61}[A-Z0-9]")
DATA: dict[str, Any] = json.loads(pkgutil.get_data("grpcerrors", "contract.json") or b"")
_QUOTATION: dict[str, str] = DATA["quotation"]


def _stripped(text: str) -> str:
    """Return a message without white space around it and what grpcio puts in front of it."""
    return _compiled(_QUOTATION["prefix"]).sub("", text.strip(" \t\r\n"), count=1)


def _unquoted(text: str) -> str:
    """Return a message without what its first and last quotation marks enclose, of any kinds."""
    opening = _compiled(_QUOTATION["opening"]).search(text)
    if not opening:
        return text
    start = opening.end() - 1
    closing = _compiled(_QUOTATION["closing"]).match(text[start + 1 :])
    end = start + 2 + closing.start(1) if closing else len(text)
    return f"{text[:start]}''{text[end:]}"


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII if pattern.startswith("^") else re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one system words a condition when it sends no details.

    Args:
        system: who words it so.
        codes: the codes under which it counts; None stands for an error without a code. Leave out
            codes whose messages quote users, unless the pattern is a whole sentence.
        pattern: what the message looks like, in RE2 syntax. A pattern that begins with `^` is
            matched against the whole message, and case matters. Any other is searched for outside
            quotation marks, and case does not matter. Only ASCII has letters here.
        hints: lower-case words; a message that contains none of them is not searched.
        source: where this wording is known from.
        unexecuted: whether a backend that says so cannot have begun to execute the request.
        unless: a message that matches this pattern too does not count; "" for no exception.

    Raises:
        re.error: a pattern is not a regular expression.
    """

    system: str
    codes: frozenset[grpc.StatusCode | None]
    pattern: str
    hints: tuple[str, ...]
    source: str
    unexecuted: bool = True
    unless: str = ""

    def __post_init__(self) -> None:
        for pattern in (self.pattern, self.unless):
            _compiled(pattern)

    def find(self, whole: str, unquoted: str) -> re.Match[str] | None:
        """Return where a message has these words; `unquoted` is the message without quoted text."""
        text = whole if self.pattern.startswith("^") else unquoted
        match = _compiled(self.pattern).search(text)
        return None if match and self.unless and _compiled(self.unless).search(text) else match


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that can be wrong, with everything needed to report and detect it.

    Two conditions are equal when domain and reason are: those identify it on the wire.

    Args:
        reason: `google.rpc.ErrorInfo.reason`, UPPER_SNAKE_CASE (AIP-193).
        code: the gRPC status code that carries it.
        message: template of the status message, with `{name}` for each field.
        domain: `google.rpc.ErrorInfo.domain`, in ASCII. Give your own conditions your own domain.
        dialects: the words that identify it when a sender gives no details.
        code_alone: whether `code` without details or words is enough.
        unexecuted: whether the condition, reported by details or words, proves that the request
            was not executed. An error marked `started` never does.
        rpc: the RPC that it is about; for any other RPC, the bare code has its usual meaning.

    Raises:
        ValueError: the reason or the domain has another form, the code is OK, the message is longer
            than 255 bytes, or it contains anything but plain named fields, or a field named
            `started` or `retry_after`.
    """

    reason: str
    code: grpc.StatusCode = field(compare=False)
    message: str = field(compare=False)
    domain: str = DOMAIN
    dialects: tuple[Dialect, ...] = field(default=(), compare=False, repr=False)
    code_alone: bool = field(default=False, compare=False)
    unexecuted: bool = field(default=False, compare=False)
    rpc: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not _REASON.fullmatch(self.reason):
            raise ValueError(
                f"reason must be UPPER_SNAKE_CASE, 3 to 63 characters: {self.reason!r}"
            )
        if not _DOMAIN.fullmatch(self.domain):
            raise ValueError("domain must be 1 to 190 characters of ASCII, no spaces")
        if len(self.message.encode()) > 255:  # noqa: PLR2004 - fits whatever the values are
            raise ValueError("message must have at most 255 bytes to fit into the trailers")
        if self.code is grpc.StatusCode.OK:
            raise ValueError("code must be an error code, not OK")
        for _, name, spec, conversion in Formatter().parse(self.message):
            if name is not None and (not name.isidentifier() or spec or conversion):
                raise ValueError(f"use plain named fields, as {{backend}}, in {self.message!r}")
            if name in ("started", "retry_after"):
                raise ValueError(f"a field cannot be named {name}, which has another meaning")

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields that `message` needs, in order of appearance."""
        return tuple(dict.fromkeys(name for _, name, *_ in Formatter().parse(self.message) if name))


class Catalogue:
    """Conditions to detect, indexed by what an error may show of them: reason, code or words."""

    def __init__(self, *conditions: Condition) -> None:
        """Index the conditions; of two with the same code alone, the earlier one counts."""
        self.conditions = tuple(dict.fromkeys(conditions))
        self.domains = frozenset(condition.domain for condition in self.conditions)
        self.by_reason = {(each.domain, each.reason): each for each in self.conditions}
        self.by_code = {each.code: each for each in reversed(self.conditions) if each.code_alone}
        self._dialects: dict[grpc.StatusCode | None, list[tuple[Condition, Dialect]]] = {}
        for condition in self.conditions:
            for dialect in condition.dialects:
                for code in dialect.codes:
                    self._dialects.setdefault(code, []).append((condition, dialect))

    def by_words(
        self, text: str, code: grpc.StatusCode | None
    ) -> tuple[Condition, Dialect, str] | None:
        """Return the condition whose words come first, its dialect, and the backend or ""."""
        lowered = text.lower()
        hinted = [
            (condition, dialect)
            for condition, dialect in self._dialects.get(code, ())
            if any(hint in lowered for hint in dialect.hints)
        ]
        if not hinted:
            return None
        whole = _stripped(text)
        unquoted = _unquoted(whole)
        hits = [(hit, *each) for each in hinted if (hit := each[1].find(whole, unquoted))]
        if not hits:
            return None
        hit, condition, dialect = min(hits, key=lambda found: found[0].start())  # others may quote
        before = hit.groupdict().get("backend") or hit.string[: hit.start()]
        return condition, dialect, before[:-2] if before.endswith(": ") else ""

    def __iter__(self) -> Iterator[Condition]:
        return iter(self.conditions)
