"""The catalogue: the conditions of the contract. CONTRACT.md holds the same table."""

from __future__ import annotations

import re

from grpc import StatusCode

from grpcerrors import _text
from grpcerrors._condition import Condition

# Codes in which a backend that knows nothing of the contract may say what is wrong. Not
# INVALID_ARGUMENT and its like: those messages quote user input, and a user must not be able to
# talk a router into dropping a replica.
_BACKENDS_OWN_WORDS = frozenset(
    {
        StatusCode.FAILED_PRECONDITION,
        StatusCode.UNKNOWN,
        StatusCode.INTERNAL,
        StatusCode.UNAVAILABLE,
        StatusCode.NOT_FOUND,
    }
)

MODEL_NOT_LOADED = Condition(
    reason="MODEL_NOT_LOADED",
    code=StatusCode.FAILED_PRECONDITION,
    message="{backend}: model not loaded",
    text=_text.MODEL_NOT_LOADED,
    text_codes=_BACKENDS_OWN_WORDS,
    code_alone=True,
    unexecuted=True,
)

MODEL_MISMATCH = Condition(
    reason="MODEL_MISMATCH",
    code=StatusCode.NOT_FOUND,
    message='{backend}: model identity mismatch: loaded "{loaded}", requested "{requested}"',
    text=re.compile("model identity mismatch", re.IGNORECASE),
    text_codes=frozenset({StatusCode.NOT_FOUND}),
    unexecuted=True,
)

LIVE_TRANSCRIPTION_UNSUPPORTED = Condition(
    reason="LIVE_TRANSCRIPTION_UNSUPPORTED",
    code=StatusCode.UNIMPLEMENTED,
    message="{backend}: live transcription unsupported: {reason}",
    # "unimplemented" is what stubs older than the RPC say, under UNKNOWN.
    text=re.compile("live transcription unsupported|unimplemented", re.IGNORECASE),
    text_codes=frozenset({StatusCode.UNIMPLEMENTED, StatusCode.UNKNOWN}),
    code_alone=True,
    unexecuted=True,
)

STREAM_TRANSCRIPTION_UNSUPPORTED = Condition(
    reason="STREAM_TRANSCRIPTION_UNSUPPORTED",
    code=StatusCode.UNIMPLEMENTED,
    message="{backend}: streaming transcription unsupported: {reason}",
    text=re.compile("streaming transcription unsupported", re.IGNORECASE),
    text_codes=frozenset({StatusCode.UNIMPLEMENTED, StatusCode.UNKNOWN}),
    unexecuted=True,
)

CATALOGUE: tuple[Condition, ...] = (
    MODEL_NOT_LOADED,
    MODEL_MISMATCH,
    LIVE_TRANSCRIPTION_UNSUPPORTED,
    STREAM_TRANSCRIPTION_UNSUPPORTED,
)
