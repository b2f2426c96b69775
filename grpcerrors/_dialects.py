"""The words in which backends without the contract say its conditions, one row each.

Precision comes first: a false hit costs a reload, which takes minutes on a large model. So nothing
here matches a message that names one kind of model ("no Whisper model loaded", "LLM not loaded"):
as often as not the process then holds a model of another kind, and loading again cures nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from grpc import StatusCode

from grpcerrors._condition import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterable


def _row(
    system: str,
    codes: Iterable[StatusCode | None],
    pattern: str,
    hints: tuple[str, ...],
    source: str,
    flags: int = 0,
) -> Dialect:
    return Dialect(system, frozenset(codes), re.compile(pattern, flags), hints, source)


# Codes in which a backend that knows nothing of the contract says what is wrong. INVALID_ARGUMENT
# and its like are not among them: such messages quote user input, and a user must not be able to
# talk a router into dropping a replica.
_OWN_WORDS = (
    StatusCode.FAILED_PRECONDITION,
    StatusCode.UNKNOWN,
    StatusCode.INTERNAL,
    StatusCode.UNAVAILABLE,
    StatusCode.NOT_FOUND,
    None,
)

# A part beside the model proper: a reload of the same configuration does not bring it.
_ACCESSORIES = ("adapter", "anti-spoof", "antispoof", "draft", "lora", "speaker", "vad", "vocoder")
_NOT_AN_ACCESSORY = "".join(rf"(?<!\b{word} )" for word in _ACCESSORIES)
_SUBJECT = r"\b(?:models?|engine|pipeline|weights)(?:/\w+)?(?: ['\"`][^'\"`\n]{1,200}['\"`])?"
_NOT = r"(?:(?:is|are|was|were|has|have)n't |(?:is |are |was |were |has |have )?(?:not|never) )"
_AUXILIARIES = r"(?:(?:is|are|was|were|has|have|been|yet|currently) ){0,3}"
_LOADED = r"(?:loaded|initiali[sz]ed)\b"

MODEL_NOT_LOADED = (
    _row(
        "the contract, and what backends say in their own words",
        _OWN_WORDS,
        rf"{_NOT_AN_ACCESSORY}{_SUBJECT} {_NOT}(?:been |yet |currently ){{0,2}}{_LOADED}"
        rf"|\bno (?:active |valid )?(?:model|engine|pipeline) {_AUXILIARIES}{_LOADED}"
        r"|\bcall LoadModel(?:\(\))? (?:first|before)\b"
        r"|\bLoadModel(?:\(\))? (?:was|has) (?:not|never) (?:been )?called\b",
        ("load", "initiali"),
        "LocalAI pkg/grpc/grpcerrors (pull request 10181), backend/go, backend/python",
        re.IGNORECASE,
    ),
    Dialect(
        "Python handlers that read what only LoadModel sets",
        frozenset({StatusCode.UNKNOWN, StatusCode.INTERNAL}),
        re.compile(r"'\w*Servicer' object has no attribute '\w+'"),
        ("has no attribute",),
        "grpcio sends the text of an uncaught exception, under UNKNOWN",
        unexecuted=False,
    ),
    _row(
        "Triton Inference Server",
        (StatusCode.NOT_FOUND, StatusCode.UNAVAILABLE),
        r"^Request for unknown model: '",
        ("unknown model",),
        "triton-inference-server/core src/model_repository_manager",
    ),
    _row(
        "TensorFlow Serving",
        (StatusCode.NOT_FOUND,),
        r"^Servable not found for request: |"
        r"^Could not find (?:any versions|version \d+) of model ",
        ("servable not found", "could not find"),
        "tensorflow/serving tensorflow_serving/core, model_servers/get_model_status_impl.cc",
    ),
    _row(
        "TorchServe",
        (StatusCode.NOT_FOUND,),
        r"^Model not found: ",
        ("model not found",),
        "pytorch/serve frontend/server archive/model/ModelNotFoundException.java",
    ),
    _row(
        "KServe",
        (StatusCode.NOT_FOUND,),
        r"^Model with name \S+ does not exist\.?$",
        ("does not exist",),
        "kserve/kserve python/kserve/kserve/errors.py",
    ),
    _row(
        "Seldon MLServer",
        (StatusCode.NOT_FOUND,),
        r"^Model (?!file )\S+ (?:with version \S+ )?not found\.?$",
        ("not found",),
        "SeldonIO/MLServer mlserver/errors.py",
    ),
)

MODEL_MISMATCH = (
    _row(
        "the contract, and LocalAI in Go and Python",
        (StatusCode.NOT_FOUND,),
        r"model identity mismatch",
        ("model identity mismatch",),
        "LocalAI pkg/grpc/server.go, backend/python/common/model_identity.py",
        re.IGNORECASE,
    ),
)

LIVE_TRANSCRIPTION_UNSUPPORTED = (
    _row(
        "the contract",
        (StatusCode.UNIMPLEMENTED, StatusCode.UNKNOWN, None),
        r"live transcription unsupported",
        ("unsupported",),
        "LocalAI pkg/grpc/grpcerrors",
        re.IGNORECASE,
    ),
    _row(
        "stubs older than the RPC",
        (StatusCode.UNKNOWN, None),
        r"unimplemented",
        ("unimplemented",),
        "LocalAI pkg/grpc/grpcerrors",
        re.IGNORECASE,
    ),
)

STREAM_TRANSCRIPTION_UNSUPPORTED = (
    _row(
        "the contract",
        (StatusCode.UNIMPLEMENTED, StatusCode.UNKNOWN, None),
        r"streaming transcription unsupported",
        ("unsupported",),
        "LocalAI pkg/grpc/grpcerrors",
        re.IGNORECASE,
    ),
)
