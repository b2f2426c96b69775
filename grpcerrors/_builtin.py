"""The built-in conditions, and the words in which backends without the contract say them.

CONTRACT.md holds the same tables. In the words precision comes first: a false hit costs a reload,
which takes minutes on a large model. So nothing here matches a message that names one kind of model
("no Whisper model loaded", "LLM not loaded"): as often as not the process then holds a model of
another kind, and reloading cures nothing.
"""

from __future__ import annotations

import re

from grpc import StatusCode

from grpcerrors._condition import Catalogue, Condition, Dialect


def _row(
    system: str,
    codes: tuple[StatusCode | None, ...],
    pattern: str,
    hints: tuple[str, ...],
    source: str,
    unless: str = "",
    *,
    unexecuted: bool = True,
) -> Dialect:
    """Make a dialect; a whole sentence has the case that it is written in."""
    flags = 0 if pattern.startswith("^") else re.IGNORECASE
    exception = re.compile(unless, flags) if unless else None
    return Dialect(
        system, frozenset(codes), re.compile(pattern, flags), hints, source, unexecuted, exception
    )


# fmt: off
# A table reads better with a few lines for each row.

# Codes in which a backend that knows nothing of the contract says in its own words what is wrong.
# INVALID_ARGUMENT, NOT_FOUND and their like are not among them: such messages quote users, and a
# user must not be able to talk a router into dropping a replica. Whole sentences count there.
_SENT = (StatusCode.FAILED_PRECONDITION, StatusCode.UNKNOWN, StatusCode.INTERNAL,
         StatusCode.UNAVAILABLE)
_NOT_FOUND = (StatusCode.NOT_FOUND,)
_UNSUPPORTED = (StatusCode.UNIMPLEMENTED, StatusCode.UNKNOWN, None)

_QUOTED_NAME = r"""(?:'[^']*'|"[^"]*")"""
# A model and its name, which without quotation marks has more than letters in it: a mere word there
# is a part of the model.
_NAME = r"(?: (?:''|``|\"\")| [a-z]{0,40}[^\sa-z_'\"`]\S{0,200})?"
_MODEL = rf"\b(?:models?|engine|pipeline|weights)(?:(?:/| or | and )\w+)?{_NAME}"
_NOT = (r"(?:(?:is|are|was|were|has|have)n't |(?:(?:is|are|was|were|has|have) )?"
        r"(?:currently |still )?(?:not|never) )")
_LOADED = r"(?:loaded|initiali[sz]ed)\b"
_NOT_LOADED = rf"{_MODEL} {_NOT}(?:been |yet |currently ){{0,2}}{_LOADED}"
_NO_MODEL_LOADED = (r"\bno (?:active |valid )?(?:models?|engine|pipeline) "
                    rf"(?:(?:is|are|was|were|has|have|been|yet|currently) ){{0,3}}{_LOADED}")
_GONE = rf"{_MODEL} (?:is |was |has been |got )?(?:unloaded|evicted)\b"

# Before these words: a part in addition to the model proper, which reloading the same configuration
# does not bring, or an engine of another kind.
_OF_ANOTHER_KIND = (r"\b(?:adapter|alignment|anti-?spoof|diarization|draft|lora|mmproj|projector"
                    r"|punctuation|refiner|speaker|vad|vocoder|query|rule|search|storage|template"
                    r"|for|of) ")
# After them: how a model is loaded that is; or the suffix of a file that a user has named so.
_AFTERWARDS = r" (?:as|from|with)\b|(?-i:\.[a-z0-9]{2,5}(?:\W|$))"

MODEL_NOT_LOADED = Condition(
    "MODEL_NOT_LOADED", StatusCode.FAILED_PRECONDITION, "{backend}: model not loaded",
    code_alone=True, unexecuted=True,
    dialects=(
        _row("LocalAI and others", (*_SENT, None), rf"{_NOT_LOADED}|{_NO_MODEL_LOADED}"
             r"|\bcall (?:\w+\.)?load_?model(?:\(\))? (?:first|before)\b"
             r"|\bload_?model(?:\(\))? (?:was|has) (?:not|never) (?:been )?called\b"
             r"|\bload (?:a|the) model (?:first|before)\b", ("load", "initiali"),
             "LocalAI pkg/grpc/grpcerrors (pull request 10181), backend/cpp, go and python",
             rf"{_OF_ANOTHER_KIND}{_NOT_LOADED}"
             rf"|(?:{_NOT_LOADED}|{_NO_MODEL_LOADED})(?:{_AFTERWARDS})"
             r"|\bpipeline is not loaded yet|\bcalled with no models loaded"
             r"|\bno such file or directory"),
        _row("backends whose model went away under the call", _SENT, _GONE, ("unloaded", "evicted"),
             "LocalAI backend/cpp/ds4", rf"{_OF_ANOTHER_KIND}{_GONE}|{_GONE}(?:{_AFTERWARDS})",
             unexecuted=False),
        _row("Python handlers that use what only LoadModel sets",
             (StatusCode.UNKNOWN, StatusCode.INTERNAL),
             r"^(?:[\w ]{1,60}: )?(?:'\w{0,100}Servicer' object has no attribute '\w{1,100}'"
             r"|'NoneType' object has no attribute '(?:generate|predict|synthesize|transcribe)')$",
             ("has no attribute",), "grpcio sends the text of an uncaught exception, under UNKNOWN",
             unexecuted=False),
        _row("Triton Inference Server", (StatusCode.NOT_FOUND, StatusCode.UNAVAILABLE),
             r"^Request for unknown model: '[^'\n]*'", ("unknown model",),
             "triton-inference-server/core src/model_repository_manager",
             # It may be loading.
             r"^Request for unknown model: '[^'\n]*' version -?\d+ is not at ready state"),
        _row("TensorFlow Serving", _NOT_FOUND, r"^(?:Servable not found for request: "
             r"|Could not find (?:any versions|version \d+) of model )",
             ("servable not found", "could not find"),
             "tensorflow/serving tensorflow_serving/core, model_servers/get_model_status_impl.cc"),
        _row("OpenVINO Model Server", _NOT_FOUND,
             r"^(?:(?:Model|Mediapipe graph definition) with requested "
             r"(?:name|version|name and/or version) is not found"
             r"|(?:Model with requested version|Pipeline|Mediapipe) is retired)\b",
             ("with requested", "is retired"), "openvinotoolkit/model_server src/status.cpp"),
        _row("TorchServe", (StatusCode.INTERNAL, StatusCode.NOT_FOUND),
             r"^(?:Model not found: [^\s/]+(?:\norg\.pytorch\.|$)"
             r"|Model version: \S+ does not exist for model: )",
             ("model not found", "does not exist"),
             "pytorch/serve frontend/server grpcimpl/InferenceImpl, OpenInferenceProtocolImpl"),
        _row("KServe", (StatusCode.NOT_FOUND, StatusCode.UNKNOWN),
             r"^Model with name \S+ does not exist\.?$", ("does not exist",),
             "kserve/kserve python/kserve/kserve/errors.py"),
        _row("KServe ModelMesh, NVIDIA Dynamo", _NOT_FOUND, r"^model not found$",
             ("model not found",),
             "kserve/modelmesh ModelMeshApi.java, ai-dynamo/dynamo lib/llm/src/grpc/service"),
        _row("Seldon MLServer", _NOT_FOUND, r"^Model \S+ (?:with version \S+ )?not found\.?$",
             ("not found",), "SeldonIO/MLServer mlserver/errors.py", r"^Model file "),
        _row("Caikit", _NOT_FOUND, r"^Model (?:'[^'\n]*'|\S+ is) not loaded\.?$", ("not loaded",),
             "caikit/caikit caikit/core/model_management, runtime/model_management"),
        _row("Ray Serve", _NOT_FOUND,
             r"^Application '[^'\n]*' not found\. (?:Please ping|Ping) /ray\.serve\.",
             ("/ray.serve.",), "ray-project/ray python/ray/serve/_private/proxy.py"),
    ),
)

MODEL_MISMATCH = Condition(
    "MODEL_MISMATCH", StatusCode.NOT_FOUND,
    '{backend}: model identity mismatch: loaded "{loaded}", requested "{requested}"',
    unexecuted=True,
    dialects=(
        _row("the contract, and LocalAI in Go and Python", _NOT_FOUND,
             r"^(?P<backend>[^\s'\"`]{0,100}: )?model identity mismatch: "
             rf"loaded {_QUOTED_NAME}, requested {_QUOTED_NAME}$", ("model identity mismatch",),
             "LocalAI pkg/grpc/server.go, backend/python/common/model_identity.py"),
    ),
)

LIVE_TRANSCRIPTION_UNSUPPORTED = Condition(
    "LIVE_TRANSCRIPTION_UNSUPPORTED", StatusCode.UNIMPLEMENTED,
    "{backend}: live transcription unsupported: {reason}", code_alone=True, unexecuted=True,
    rpc="AudioTranscriptionLive",
    dialects=(
        _row("the contract", _UNSUPPORTED, r"live transcription unsupported", ("unsupported",),
             "LocalAI pkg/grpc/grpcerrors"),
        _row("stubs older than the RPC", (StatusCode.UNKNOWN, None), r"unimplemented",
             ("unimplemented",), "LocalAI pkg/grpc/grpcerrors"),
    ),
)

STREAM_TRANSCRIPTION_UNSUPPORTED = Condition(
    "STREAM_TRANSCRIPTION_UNSUPPORTED", StatusCode.UNIMPLEMENTED,
    "{backend}: streaming transcription unsupported: {reason}", unexecuted=True,
    dialects=(
        _row("the contract", _UNSUPPORTED, r"streaming transcription unsupported", ("unsupported",),
             "LocalAI pkg/grpc/grpcerrors"),
    ),
)

CATALOGUE = Catalogue(MODEL_NOT_LOADED, MODEL_MISMATCH, LIVE_TRANSCRIPTION_UNSUPPORTED,
                      STREAM_TRANSCRIPTION_UNSUPPORTED)
