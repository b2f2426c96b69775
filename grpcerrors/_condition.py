"""What a condition is: data that one engine builds, sends and detects."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from string import Formatter
from typing import TYPE_CHECKING, NamedTuple

import grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

DOMAIN = "grpcerrors"

# Bytes of a domain or message template: both fit into the trailers whatever the values are.
_LONGEST = 255

# AIP-193: at most 63 characters of this form.
_REASON = re.compile(r"[A-Z][A-Z0-9_]{1,61}[A-Z0-9]")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one system says a condition in words, when it gives no details.

    Args:
        system: who says it.
        codes: the codes under which it counts; None stands for an error without a code. Leave out
            codes whose messages quote user input.
        pattern: what the message looks like; searched, so anchor it where the sentence is fixed.
        hints: words in lower case of which a message has one at least, or it is not searched.
        source: where that is known from.
        unexecuted: whether who says so cannot have begun to execute the request.
    """

    system: str
    codes: frozenset[grpc.StatusCode | None]
    pattern: re.Pattern[str]
    hints: tuple[str, ...]
    source: str
    unexecuted: bool = True


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that can be wrong, with all that is known about saying and hearing it.

    Two conditions are equal when domain and reason are: those name it on the wire.

    Args:
        reason: `google.rpc.ErrorInfo.reason`, UPPER_SNAKE_CASE (AIP-193).
        code: the gRPC status code that carries it.
        message: template of the status message, with `{name}` for each field.
        domain: `google.rpc.ErrorInfo.domain`. A condition of your own takes a domain of your own.
        dialects: the words by which it is known when a sender gives no details.
        code_alone: whether `code` without details or words is enough.
        unexecuted: whether the condition, said with details or in words, proves that the request
            was not executed. An error marked `started` never does.

    Raises:
        ValueError: the reason is not of that form, the code is OK, the domain is empty, domain or
            message is over 255 bytes, or the message holds anything but plain named fields.
    """

    reason: str
    code: grpc.StatusCode = field(compare=False)
    message: str = field(compare=False)
    domain: str = DOMAIN
    dialects: tuple[Dialect, ...] = field(default=(), compare=False, repr=False)
    code_alone: bool = field(default=False, compare=False)
    unexecuted: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if not _REASON.fullmatch(self.reason):
            msg = f"reason {self.reason!r} must be UPPER_SNAKE_CASE of 3 to 63 characters (AIP-193)"
            raise ValueError(msg)
        if not 0 < len(self.domain.encode()) <= _LONGEST:
            msg = f"domain must say who defines the reason in 1 to {_LONGEST} bytes: example.com"
            raise ValueError(msg)
        if len(self.message.encode()) > _LONGEST:
            msg = f"message must be at most {_LONGEST} bytes, so that it fits into the trailers"
            raise ValueError(msg)
        if self.code is grpc.StatusCode.OK:
            msg = "code must be an error code, not OK"
            raise ValueError(msg)
        for _, name, spec, conversion in Formatter().parse(self.message):
            if name is not None and (not name.isidentifier() or spec or conversion):
                msg = f"message {self.message!r} may hold plain named fields only, as {{backend}}"
                raise ValueError(msg)

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields that `message` needs, in its order."""
        parts = Formatter().parse(self.message)
        return tuple(dict.fromkeys(name for _, name, _, _ in parts if name))


class Heard(NamedTuple):
    """A condition said in words, and where in the text the words begin."""

    start: int
    condition: Condition
    dialect: Dialect
    text: str

    @property
    def backend(self) -> str:
        """Who says it, where the text has the contract's form `<backend>: <words>`."""
        before = self.text[: self.start]
        return before[:-2] if before.endswith(": ") else ""


class Catalogue:
    """Conditions to detect, indexed by what an error may show of them."""

    def __init__(self, *conditions: Condition) -> None:
        """Index the conditions; of two with the same code alone, the earlier one counts."""
        self.conditions = tuple(dict.fromkeys(conditions))
        self.domains = frozenset(condition.domain for condition in self.conditions)
        self._by_reason = {(each.domain, each.reason): each for each in self.conditions}
        self._by_code: dict[grpc.StatusCode | None, Condition] = {
            each.code: each for each in reversed(self.conditions) if each.code_alone
        }
        self._speakers: dict[grpc.StatusCode | None, list[tuple[Condition, Dialect]]] = {}
        self._hints: dict[grpc.StatusCode | None, set[str]] = {}
        for condition in self.conditions:
            for dialect in condition.dialects:
                for code in dialect.codes:
                    self._speakers.setdefault(code, []).append((condition, dialect))
                    self._hints.setdefault(code, set()).update(dialect.hints)

    def by_reason(self, domain: str, reason: str) -> Condition | None:
        """Return the condition that an ErrorInfo names."""
        return self._by_reason.get((domain, reason))

    def by_words(self, text: str, code: grpc.StatusCode | None) -> Heard | None:
        """Return the condition whose words come first: what follows may be quoted in them."""
        lowered = text.lower()
        for hint in self._hints.get(code, ()):
            if hint in lowered:
                break
        else:
            return None
        heard = [
            Heard(match.start(), condition, dialect, text)
            for condition, dialect in self._speakers[code]
            if (match := dialect.pattern.search(text))
        ]
        return min(heard, key=lambda each: each.start) if heard else None

    def by_code(self, code: grpc.StatusCode | None) -> Condition | None:
        """Return the condition that a code alone stands for."""
        return self._by_code.get(code)

    def __iter__(self) -> Iterator[Condition]:
        """Iterate over the conditions, in the order given."""
        return iter(self.conditions)
