"""The catalogue: the conditions of the contract. CONTRACT.md holds the same table."""

from __future__ import annotations

from grpc import StatusCode

from grpcerrors import _dialects
from grpcerrors._condition import Catalogue, Condition

MODEL_NOT_LOADED = Condition(
    reason="MODEL_NOT_LOADED",
    code=StatusCode.FAILED_PRECONDITION,
    message="{backend}: model not loaded",
    dialects=_dialects.MODEL_NOT_LOADED,
    code_alone=True,
    unexecuted=True,
)

MODEL_MISMATCH = Condition(
    reason="MODEL_MISMATCH",
    code=StatusCode.NOT_FOUND,
    message='{backend}: model identity mismatch: loaded "{loaded}", requested "{requested}"',
    dialects=_dialects.MODEL_MISMATCH,
    unexecuted=True,
)

LIVE_TRANSCRIPTION_UNSUPPORTED = Condition(
    reason="LIVE_TRANSCRIPTION_UNSUPPORTED",
    code=StatusCode.UNIMPLEMENTED,
    message="{backend}: live transcription unsupported: {reason}",
    dialects=_dialects.LIVE_TRANSCRIPTION_UNSUPPORTED,
    code_alone=True,
    unexecuted=True,
)

STREAM_TRANSCRIPTION_UNSUPPORTED = Condition(
    reason="STREAM_TRANSCRIPTION_UNSUPPORTED",
    code=StatusCode.UNIMPLEMENTED,
    message="{backend}: streaming transcription unsupported: {reason}",
    dialects=_dialects.STREAM_TRANSCRIPTION_UNSUPPORTED,
    unexecuted=True,
)

CATALOGUE = Catalogue(
    MODEL_NOT_LOADED,
    MODEL_MISMATCH,
    LIVE_TRANSCRIPTION_UNSUPPORTED,
    STREAM_TRANSCRIPTION_UNSUPPORTED,
)
