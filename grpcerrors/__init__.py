"""The error contract for model serving over gRPC: build, send, detect and explain it.

In a backend: `grpc.server(pool, interceptors=[ModelGuard("rfdetr")])`.
In a router: `if is_model_not_loaded(err): ...`. What travels on the wire is in CONTRACT.md.
"""

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
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
else:

    def __getattr__(name: str) -> object:
        # What only senders and people need takes as long to import as all that a client needs.
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from grpcerrors import _error, _explain  # noqa: PLC0415
        from grpcerrors._guard import abort, protocol, sync  # noqa: PLC0415

        homes = (protocol, sync, abort, _error, _explain)
        return globals().setdefault(name, next(vars(m)[name] for m in homes if name in vars(m)))
