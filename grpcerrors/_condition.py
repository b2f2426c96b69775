"""What a condition is: data that one engine builds, sends and detects."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from string import Formatter

import grpc

DOMAIN = "grpcerrors"

# Bytes of a domain or message template, so that both fit into the trailers whatever the values are.
_LONGEST = 255

# AIP-193: at most 63 characters of this form.
_REASON = re.compile(r"[A-Z][A-Z0-9_]{1,61}[A-Z0-9]")


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that can be wrong, with all that is known about saying and hearing it.

    Two conditions are equal when domain and reason are: those name it on the wire.

    Args:
        reason: `google.rpc.ErrorInfo.reason`, UPPER_SNAKE_CASE (AIP-193).
        code: the gRPC status code that carries it.
        message: template of the status message, with `{name}` for each field.
        domain: `google.rpc.ErrorInfo.domain`. A condition of your own takes a domain of your own.
        text: what the message looks like when a sender gives no details; searched, not anchored.
        text_codes: the codes under which `text` counts, besides no code at all. Leave out codes
            whose messages quote user input.
        code_alone: whether `code` without details or text is enough.
        unexecuted: whether the condition proves that the request was not executed (an error marked
            `started` never proves it).

    Raises:
        ValueError: the reason is not of that form, the code is OK, the domain is empty, domain or
            message is over 255 bytes, or the message holds anything but plain named fields.
    """

    reason: str
    code: grpc.StatusCode = field(compare=False)
    message: str = field(compare=False)
    domain: str = DOMAIN
    text: re.Pattern[str] | None = field(default=None, compare=False)
    text_codes: frozenset[grpc.StatusCode] = field(default=frozenset(), compare=False)
    code_alone: bool = field(default=False, compare=False)
    unexecuted: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if not _REASON.fullmatch(self.reason):
            msg = f"reason {self.reason!r} must be UPPER_SNAKE_CASE of 3 to 63 characters (AIP-193)"
            raise ValueError(msg)
        if not 0 < len(self.domain.encode()) <= _LONGEST:
            msg = (
                f"domain must say who defines the reason in 1 to {_LONGEST} bytes, as 'example.com'"
            )
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
        return tuple(
            dict.fromkeys(name for _, name, _, _ in Formatter().parse(self.message) if name)
        )
