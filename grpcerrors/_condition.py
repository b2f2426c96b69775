"""What a condition is: data from which one engine builds, sends and detects errors."""

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

# What grpcio puts before the text of an exception that a handler raises.
_PREFIX = re.compile(
    r"(?:Exception (?:calling application|iterating responses): |Unexpected <class '[^'\n]+'>: )*"
)

# Typographic quotation marks of several languages.
_OPENING = "\u2018\u201a-\u201c\u201e\u201f\u00ab\u2039\u300c\u300e"
_CLOSING = "\u2018\u2019\u201c\u201d\u00bb\u203a\u300d\u300f"

# For each kind of quotation mark, all from the first that opens to the last that closes: a user may
# write one too. An apostrophe inside a word is none, that of `b'x'` is.
_QUOTED = tuple(
    (re.compile(pattern, re.DOTALL), replacement)
    for pattern, replacement in (
        (r'"(?:.*"|.*)', '""'),
        (r"`(?:.*`|.*)", "``"),
        (r"(^|\W)([bBfFrRuU]{0,2})'(?:.*'(?!\w)|.*)", r"\1\2''"),
        (f"[{_OPENING}](?:.*[{_CLOSING}]|.*)", '""'),
    )
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one system words a condition when it sends no details.

    Args:
        system: who says it.
        codes: the codes under which it counts; None stands for an error without a code. Leave out
            codes whose messages quote users, unless the pattern is a whole sentence.
        pattern: what the message looks like. It is searched in what stands outside of quotation
            marks; where it begins with `^`, it is matched with the whole message. RE2 syntax.
        hints: words in lower case; a message with none of them is not searched.
        source: where this is known from.
        unexecuted: whether a backend that says so cannot have begun to execute the request.
        unless: a pattern, as above; a message that has this too does not count.
    """

    system: str
    codes: frozenset[grpc.StatusCode | None]
    pattern: re.Pattern[str]
    hints: tuple[str, ...]
    source: str
    unexecuted: bool = True
    unless: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that can be wrong, with all that is known about saying and detecting it.

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
        rpc: the RPC that it is about; of any other, the bare code means what gRPC means by it.

    Raises:
        ValueError: the reason is not of that form, the code is OK, the domain is empty, domain or
            message is over 255 bytes, or the message holds anything but plain named fields, none
            of which may be named `started`.
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
            msg = f"reason {self.reason!r} must be UPPER_SNAKE_CASE of 3 to 63 characters (AIP-193)"
            raise ValueError(msg)
        if not 0 < len(self.domain.encode()) <= _LONGEST:
            msg = f"domain must say who defines the reason in 1 to {_LONGEST} bytes: example.com"
            raise ValueError(msg)
        if len(self.message.encode()) > _LONGEST:
            msg = f"message must be at most {_LONGEST} bytes, so that it fits into the trailers"
            raise ValueError(msg)
        if self.code is grpc.StatusCode.OK:
            raise ValueError("code must be an error code, not OK")
        for _, name, spec, conversion in Formatter().parse(self.message):
            if name is not None and (not name.isidentifier() or spec or conversion):
                msg = f"message {self.message!r} may hold plain named fields only, as {{backend}}"
                raise ValueError(msg)
        if "started" in self.fields:
            raise ValueError("a field cannot be named started: that marks a request that had begun")

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields that `message` needs, in its order."""
        parts = Formatter().parse(self.message)
        return tuple(dict.fromkeys(name for _, name, _, _ in parts if name))


class Heard(NamedTuple):
    """A condition said in words: which, in which dialect, and by which backend ("" for unknown)."""

    condition: Condition
    dialect: Dialect
    backend: str


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
        self._dialects: dict[grpc.StatusCode | None, list[tuple[Condition, Dialect]]] = {}
        self._hints: dict[grpc.StatusCode | None, set[str]] = {}
        for condition in self.conditions:
            for dialect in condition.dialects:
                for code in dialect.codes:
                    self._dialects.setdefault(code, []).append((condition, dialect))
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
        whole = _PREFIX.sub("", text, count=1)
        unquoted = _unquoted(whole)
        first, heard = len(text), None
        for condition, dialect in self._dialects[code]:
            anchored = dialect.pattern.pattern.startswith("^")
            words = whole if anchored else unquoted
            match = dialect.pattern.search(words)
            if match is None or match.start() >= first:
                continue
            if dialect.unless is None or not dialect.unless.search(words):
                before = match.groupdict().get("backend") or words[: match.start()]
                backend = before[:-2] if before.endswith(": ") else ""
                first, heard = match.start(), Heard(condition, dialect, backend)
        return heard

    def by_code(self, code: grpc.StatusCode | None) -> Condition | None:
        """Return the condition that a code alone stands for."""
        return self._by_code.get(code)

    def __iter__(self) -> Iterator[Condition]:
        """Iterate over the conditions, in the order given."""
        return iter(self.conditions)


def _unquoted(text: str) -> str:
    """Leave out what stands in quotation marks; those themselves stay."""
    for pattern, replacement in _QUOTED:
        text = pattern.sub(replacement, text)
    return text
