"""The error contract for model serving over gRPC: build, send, detect and explain it.

A backend: `grpc.server(pool, interceptors=[ModelGuard("rfdetr")])`, or `raise model_not_loaded("x")`.
A router: `if is_model_not_loaded(err): ...`. What travels on the wire is in CONTRACT.md.
"""

from __future__ import annotations

from grpcerrors._catalogue import (
    CATALOGUE,
    LIVE_TRANSCRIPTION_UNSUPPORTED,
    MODEL_MISMATCH,
    MODEL_NOT_LOADED,
    STREAM_TRANSCRIPTION_UNSUPPORTED,
)
from grpcerrors._condition import Condition
from grpcerrors._error import (
    ContractError,
    live_transcription_unsupported,
    model_mismatch,
    model_not_loaded,
    stream_transcription_unsupported,
)

__all__ = [
    "CATALOGUE",
    "LIVE_TRANSCRIPTION_UNSUPPORTED",
    "MODEL_MISMATCH",
    "MODEL_NOT_LOADED",
    "STREAM_TRANSCRIPTION_UNSUPPORTED",
    "Condition",
    "ContractError",
    "live_transcription_unsupported",
    "model_mismatch",
    "model_not_loaded",
    "stream_transcription_unsupported",
]
