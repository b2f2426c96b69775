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
    *,
    unexecuted: bool = True,
) -> Dialect:
    return Dialect(system, frozenset(codes), re.compile(pattern, flags), hints, source, unexecuted)


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

# The same of a backend's answer that no exception of a router's own may be taken for.
_SENT = tuple(code for code in _OWN_WORDS if code is not None)

# What, before "model" or "engine", names a part beside the model proper, which a reload of the same
# configuration does not bring, or an engine of another kind.
_OF_ANOTHER_KIND = (
    *("adapter", "alignment", "anti-spoof", "antispoof", "diarization", "draft", "lora", "mmproj"),
    *("projector", "punctuation", "refiner", "speaker", "vad", "vocoder"),
    *("query", "rule", "search", "storage", "template"),
    *("for", "of"),
)
_NOT_OF_ANOTHER_KIND = "".join(rf"(?<!\b{word} )" for word in _OF_ANOTHER_KIND)
# A name without quotes has more than letters in it: a mere word there is a part of the model.
_NAME = r"(?: ['\"`][^'\"`\n]{1,200}['\"`]| [a-z]{0,40}[^\sa-z_'\"`]\S{0,200})?"
_SUBJECT = (
    rf"\b(?=[empw]){_NOT_OF_ANOTHER_KIND}"
    rf"(?:models?|engine|pipeline(?! is not loaded yet)|weights)(?:(?:/| or | and )\w+)?{_NAME}"
)
_NOT = (
    r"(?:(?:is|are|was|were|has|have)n't |(?:(?:is|are|was|were|has|have) )?"
    r"(?:currently |still )?(?:not|never) )"
)
_AUXILIARIES = r"(?:(?:is|are|was|were|has|have|been|yet|currently) ){0,3}"
_LOADED = r"(?:loaded|initiali[sz]ed)\b"

MODEL_NOT_LOADED = (
    _row(
        "LocalAI and others",
        _OWN_WORDS,
        # "Not loaded with embeddings" tells of a model that is loaded.
        rf"{_SUBJECT} {_NOT}(?:been |yet |currently ){{0,2}}{_LOADED}(?! (?:as|from|with)\b)"
        rf"|\bno (?:active |valid )?(?:models?|engine|pipeline) {_AUXILIARIES}{_LOADED}"
        r"|\bcall (?:\w+\.)?load_?model(?:\(\))? (?:first|before)\b"
        r"|\bload_?model(?:\(\))? (?:was|has) (?:not|never) (?:been )?called\b"
        r"|\bload (?:a|the) model (?:first|before)\b",
        ("load", "initiali"),
        "LocalAI pkg/grpc/grpcerrors (pull request 10181), backend/cpp, backend/go, backend/python",
        re.IGNORECASE,
    ),
    _row(
        "backends whose model went away under the call",
        _SENT,
        rf"{_SUBJECT} (?:is |was |has been |got )?(?:unloaded|evicted)\b",
        ("unloaded", "evicted"),
        "LocalAI backend/cpp/ds4",
        re.IGNORECASE,
        unexecuted=False,
    ),
    _row(
        "Python handlers that use what only LoadModel sets",
        (StatusCode.UNKNOWN, StatusCode.INTERNAL),
        r"'\w*Servicer' object has no attribute '\w+'"
        r"|'NoneType' object has no attribute '(?:generate|predict|synthesize|transcribe)'",
        ("has no attribute",),
        "grpcio sends the text of an uncaught exception, under UNKNOWN",
        unexecuted=False,
    ),
    _row(
        "Triton Inference Server",
        (StatusCode.NOT_FOUND, StatusCode.UNAVAILABLE),
        # A version that is "not at ready state" may be loading.
        r"^Request for unknown model: '[^'\n]*'(?! version -?\d+ is not at ready state)",
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
        "OpenVINO Model Server",
        (StatusCode.NOT_FOUND,),
        r"^(?:Model|Mediapipe graph definition) with requested "
        r"(?:name|version|name and/or version) is not found\b"
        r"|^(?:Model with requested version|Pipeline|Mediapipe) is retired\b",
        ("with requested", "is retired"),
        "openvinotoolkit/model_server src/status.cpp",
    ),
    _row(
        "TorchServe",
        (StatusCode.INTERNAL, StatusCode.NOT_FOUND),
        r"^Model not found: [^\s/]+(?:\norg\.pytorch\.|$)"
        r"|^Model version: \S+ does not exist for model: ",
        ("model not found", "does not exist"),
        "pytorch/serve frontend/server grpcimpl/InferenceImpl.java, OpenInferenceProtocolImpl.java",
    ),
    _row(
        "KServe",
        (StatusCode.NOT_FOUND, StatusCode.UNKNOWN),
        r"^(?:Unexpected <class '[\w.]+'>: )?Model with name \S+ does not exist\.?$",
        ("does not exist",),
        "kserve/kserve python/kserve/kserve/errors.py",
    ),
    _row(
        "KServe ModelMesh, NVIDIA Dynamo",
        (StatusCode.NOT_FOUND,),
        r"^model not found$",
        ("model not found",),
        "kserve/modelmesh ModelMeshApi.java, ai-dynamo/dynamo lib/llm/src/grpc/service",
    ),
    _row(
        "Seldon MLServer",
        (StatusCode.NOT_FOUND,),
        r"^Model (?!file )\S+ (?:with version \S+ )?not found\.?$",
        ("not found",),
        "SeldonIO/MLServer mlserver/errors.py",
    ),
    _row(
        "Ray Serve",
        (StatusCode.NOT_FOUND,),
        r"^Application '[^'\n]*' not found\. (?:Please ping|Ping) /ray\.serve\.",
        ("/ray.serve.",),
        "ray-project/ray python/ray/serve/_private/proxy.py",
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
