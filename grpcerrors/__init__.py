"""The error contract for model serving over gRPC: build, send, detect and explain it.

In a backend: `grpc.server(pool, interceptors=[ModelGuard("rfdetr")])`.
In a router: `if is_model_not_loaded(err): ...`. What travels on the wire is in CONTRACT.md.
"""

from grpcerrors._builtin import (
    CATALOGUE,
    LIVE_TRANSCRIPTION_UNSUPPORTED,
    MODEL_LOADING,
    MODEL_MISMATCH,
    MODEL_NOT_LOADED,
    STREAM_TRANSCRIPTION_UNSUPPORTED,
)
from grpcerrors._condition import Catalogue, Condition, Dialect
from grpcerrors._detect import (
    Evidence,
    Verdict,
    classify,
    held_model,
    is_live_transcription_unsupported,
    is_model_loading,
    is_model_mismatch,
    is_model_not_loaded,
    is_stream_transcription_unsupported,
    matches,
)
from grpcerrors._error import (
    ContractError,
    live_transcription_unsupported,
    model_loading,
    model_mismatch,
    model_not_loaded,
    stream_transcription_unsupported,
)
from grpcerrors._explain import explain
from grpcerrors._guard.abort import abort
from grpcerrors._guard.protocol import KSERVE, LOCALAI, Protocol
from grpcerrors._guard.sync import ModelGuard

# fmt: off
__all__ = [
    "CATALOGUE", "KSERVE", "LIVE_TRANSCRIPTION_UNSUPPORTED", "LOCALAI", "MODEL_LOADING",
    "MODEL_MISMATCH", "MODEL_NOT_LOADED", "STREAM_TRANSCRIPTION_UNSUPPORTED", "Catalogue",
    "Condition", "ContractError", "Dialect", "Evidence", "ModelGuard", "Protocol", "Verdict",
    "__version__", "abort", "classify", "explain", "held_model",
    "is_live_transcription_unsupported", "is_model_loading", "is_model_mismatch",
    "is_model_not_loaded", "is_stream_transcription_unsupported", "live_transcription_unsupported",
    "matches", "model_loading", "model_mismatch", "model_not_loaded",
    "stream_transcription_unsupported",
]
# fmt: on

__version__ = "0.1.0"
