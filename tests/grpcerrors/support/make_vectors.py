"""The rows of grpcerrors/vectors.json.

After a change: `python -m tests.grpcerrors.support.make_vectors`.

A build row is an error as the contract builds it, so its bytes come from the library. A detect row
is an error as a client meets it, with the answer that the contract asks for: that is stated here by
hand, never taken from the library.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

import grpcerrors
from grpcerrors import (
    LIVE_TRANSCRIPTION_UNSUPPORTED,
    MODEL_MISMATCH,
    MODEL_NOT_LOADED,
    STREAM_TRANSCRIPTION_UNSUPPORTED,
    Condition,
    ContractError,
)

PATH = Path(grpcerrors.__file__).with_name("vectors.json")

UNKNOWN, INVALID_ARGUMENT, NOT_FOUND = 2, 3, 5
FAILED_PRECONDITION, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 9, 12, 13, 14

Row = dict[str, Any]


def _built() -> list[Row]:
    kanji = "日本語モデル"
    return [
        _build("not loaded", MODEL_NOT_LOADED, backend="rfdetr"),
        _build("not loaded, model named", MODEL_NOT_LOADED, backend="rfdetr", model="base.gguf"),
        _build("not loaded, handler had begun", MODEL_NOT_LOADED, started=True, backend="rfdetr"),
        _build("not loaded, backend empty", MODEL_NOT_LOADED, backend=""),
        _build("not loaded, CJK", MODEL_NOT_LOADED, backend="語り", model=kanji),
        _build("not loaded, NUL", MODEL_NOT_LOADED, backend="rf\0detr"),
        _build("not loaded, newlines", MODEL_NOT_LOADED, backend="rf\r\ndetr\n"),
        _build("not loaded, percent", MODEL_NOT_LOADED, backend="100%25 sure"),
        _build("not loaded, beyond the BMP", MODEL_NOT_LOADED, backend="🦙.cpp"),
        _build("not loaded, backend cut", MODEL_NOT_LOADED, backend="rfdetr" * 1000),
        _build("not loaded, CJK cut", MODEL_NOT_LOADED, backend="rfdetr", model=kanji * 500),
        _build("mismatch", MODEL_MISMATCH, backend="vllm", loaded="a", requested="b"),
        _build("mismatch, nothing named", MODEL_MISMATCH, backend="vllm", loaded="", requested=""),
        _build("mismatch, quotes", MODEL_MISMATCH, backend="x", loaded="'a\"", requested='"b'),
        _build("mismatch, cut", MODEL_MISMATCH, backend="x", loaded="a" * 5000, requested="b"),
        _build(
            "live transcription",
            LIVE_TRANSCRIPTION_UNSUPPORTED,
            backend="whisper",
            reason="offline",
        ),
        _build(
            "streaming transcription",
            STREAM_TRANSCRIPTION_UNSUPPORTED,
            backend="whisper",
            reason="offline",
        ),
    ]


def _build(name: str, condition: Condition, *, started: bool = False, **fields: str) -> Row:
    error = ContractError(condition, started=started, **fields)
    ((_, details),) = error.trailing_metadata
    return {
        "name": name,
        "condition": condition.reason,
        "fields": fields,
        "started": started,
        "code": error.code.value[0],
        "message": error.details,
        "details_hex": details.hex(),
    }


def _info(reason: str, domain: str = "grpcerrors", /, **metadata: str) -> any_pb2.Any:
    info = error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)
    url = "type.googleapis.com/google.rpc.ErrorInfo"
    return any_pb2.Any(type_url=url, value=info.SerializeToString(deterministic=True))


def _status(code: int, message: str, *details: any_pb2.Any) -> bytes:
    return status_pb2.Status(code=code, message=message, details=details).SerializeToString(
        deterministic=True
    )


def _prefixed(detail: any_pb2.Any, prefix: str) -> any_pb2.Any:
    return any_pb2.Any(type_url=f"{prefix}google.rpc.ErrorInfo", value=detail.value)


SAID = "x: model not loaded"
OURS = _info("MODEL_NOT_LOADED", backend="x")
TYPED = _status(FAILED_PRECONDITION, SAID, OURS)
OTHER_TYPED = _status(FAILED_PRECONDITION, SAID, _info("MODEL_NOT_LOADED", backend="y"))
FOREIGN = _status(FAILED_PRECONDITION, SAID, _info("QUOTA", "example.com"))
NAMESAKE = _status(FAILED_PRECONDITION, "no", _info("MODEL_NOT_LOADED", "example.com"))
UNHEARD_OF = _status(FAILED_PRECONDITION, SAID, _info("FROM_THE_FUTURE"))
MISMATCHED = _status(NOT_FOUND, "no", _info("MODEL_MISMATCH", loaded="a", requested="b"))
LIVE = _status(UNIMPLEMENTED, "no", _info("LIVE_TRANSCRIPTION_UNSUPPORTED", reason="offline"))
BESIDE = any_pb2.Any(
    type_url="type.googleapis.com/google.rpc.DebugInfo",
    value=error_details_pb2.DebugInfo(detail="d").SerializeToString(),
)
BROKEN_INFO = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\x0a\x7fx")

NOT_LOADED, MISMATCH = "MODEL_NOT_LOADED", "MODEL_MISMATCH"
NO_LIVE, NO_STREAM = "LIVE_TRANSCRIPTION_UNSUPPORTED", "STREAM_TRANSCRIPTION_UNSUPPORTED"

_DETECTED: list[tuple[str, int, str, list[bytes] | None, str | None, str | None]] = [
    # Details decide, whatever a hop made of the rest.
    ("details", FAILED_PRECONDITION, SAID, [TYPED], NOT_LOADED, "details"),
    ("details, text rewritten", FAILED_PRECONDITION, "bad day", [TYPED], NOT_LOADED, "details"),
    ("details, text gone", FAILED_PRECONDITION, "", [TYPED], NOT_LOADED, "details"),
    ("details, code rewritten", UNKNOWN, SAID, [TYPED], NOT_LOADED, "details"),
    ("details, INVALID_ARGUMENT", INVALID_ARGUMENT, "no", [TYPED], NOT_LOADED, "details"),
    ("details twice the same", FAILED_PRECONDITION, "no", [TYPED, TYPED], NOT_LOADED, "details"),
    (
        "details beside another detail",
        FAILED_PRECONDITION,
        "no",
        [_status(FAILED_PRECONDITION, "no", BESIDE, OURS)],
        NOT_LOADED,
        "details",
    ),
    (
        "details, another type prefix",
        FAILED_PRECONDITION,
        "no",
        [_status(FAILED_PRECONDITION, "no", _prefixed(OURS, "types.example.com/"))],
        NOT_LOADED,
        "details",
    ),
    (
        "details, no type prefix",
        FAILED_PRECONDITION,
        "no",
        [_status(FAILED_PRECONDITION, "no", _prefixed(OURS, ""))],
        NOT_LOADED,
        "details",
    ),
    ("mismatch by details", UNKNOWN, SAID, [MISMATCHED], MISMATCH, "details"),
    ("live by details", FAILED_PRECONDITION, SAID, [LIVE], NO_LIVE, "details"),
    # Another reason of our domain vetoes what code and text seem to say.
    ("unknown reason of ours", FAILED_PRECONDITION, SAID, [UNHEARD_OF], None, "details"),
    # Another domain says that the code alone means something else; the words still count.
    ("foreign, the words", FAILED_PRECONDITION, SAID, [FOREIGN], NOT_LOADED, "text"),
    ("foreign, no words", FAILED_PRECONDITION, "quota", [FOREIGN], None, None),
    ("foreign namesake, no words", FAILED_PRECONDITION, "quota", [NAMESAKE], None, None),
    # What cannot be read is ignored.
    ("malformed, the words", UNKNOWN, SAID, [b"\xff\xff"], NOT_LOADED, "text"),
    ("malformed, no words", FAILED_PRECONDITION, "no", [b"\xff\xff"], NOT_LOADED, "code"),
    ("empty trailer", FAILED_PRECONDITION, SAID, [b""], NOT_LOADED, "text"),
    ("truncated", FAILED_PRECONDITION, SAID, [TYPED[:-9]], NOT_LOADED, "text"),
    ("two that differ", FAILED_PRECONDITION, "no", [TYPED, OTHER_TYPED], NOT_LOADED, "code"),
    ("two that differ, UNKNOWN", UNKNOWN, "no", [TYPED, OTHER_TYPED], None, None),
    (
        "broken ErrorInfo, no words",
        FAILED_PRECONDITION,
        "no",
        [_status(FAILED_PRECONDITION, "no", BROKEN_INFO)],
        NOT_LOADED,
        "code",
    ),
    (
        "details without an ErrorInfo",
        FAILED_PRECONDITION,
        "no",
        [_status(FAILED_PRECONDITION, "no", BESIDE)],
        NOT_LOADED,
        "code",
    ),
    # Senders without the contract.
    ("Go, status.Errorf", FAILED_PRECONDITION, SAID, None, NOT_LOADED, "text"),
    ("Go, bare FAILED_PRECONDITION", FAILED_PRECONDITION, "", None, NOT_LOADED, "code"),
    ("other words", FAILED_PRECONDITION, "run warmup first", None, NOT_LOADED, "code"),
    ("Go, errors.New", UNKNOWN, SAID, None, NOT_LOADED, "text"),
    (
        "Python, raised",
        UNKNOWN,
        "Exception calling application: Model not loaded",
        None,
        NOT_LOADED,
        "text",
    ),
    ("capitals", INTERNAL, "MODEL NOT LOADED", None, NOT_LOADED, "text"),
    ("UNAVAILABLE", UNAVAILABLE, SAID, None, NOT_LOADED, "text"),
    ("no model loaded", UNKNOWN, "no model loaded", None, NOT_LOADED, "text"),
    ("CJK around the words", UNKNOWN, "語り: model not loaded。", None, NOT_LOADED, "text"),
    ("NUL before the words", UNKNOWN, "x\0: model not loaded", None, NOT_LOADED, "text"),
    ("newline before the words", UNKNOWN, "oops\nx: model not loaded", None, NOT_LOADED, "text"),
    (
        "mismatch, Go's quotes",
        NOT_FOUND,
        'x: model identity mismatch: loaded "a", requested "b"',
        None,
        MISMATCH,
        "text",
    ),
    (
        "mismatch, Python's quotes",
        NOT_FOUND,
        "x: model identity mismatch: loaded 'a', requested 'b'",
        None,
        MISMATCH,
        "text",
    ),
    (
        "mismatch that quotes the other words",
        NOT_FOUND,
        'x: model identity mismatch: loaded "model not loaded", requested "b"',
        None,
        MISMATCH,
        "text",
    ),
    (
        "live, by text",
        UNIMPLEMENTED,
        "x: live transcription unsupported: offline",
        None,
        NO_LIVE,
        "text",
    ),
    ("live, a stub older than the RPC", UNKNOWN, "unimplemented", None, NO_LIVE, "text"),
    ("live, by code", UNIMPLEMENTED, "Method not found!", None, NO_LIVE, "code"),
    (
        "streaming, by text",
        UNIMPLEMENTED,
        "x: streaming transcription unsupported: offline",
        None,
        NO_STREAM,
        "text",
    ),
    # Not the contract's business.
    ("user input quoted", INVALID_ARGUMENT, 'prompt: "model not loaded"', None, None, None),
    ("mismatch quoted", INVALID_ARGUMENT, "model identity mismatch", None, None, None),
    ("words in a user's voice", NOT_FOUND, "no voice named model not loaded", None, None, None),
    ("mismatch in a user's file", NOT_FOUND, "model identity mismatch.wav", None, None, None),
    ("words in double quotes", UNKNOWN, 'no voice "model not loaded"', None, None, None),
    ("words in single quotes", INTERNAL, "no voice 'model not loaded'", None, None, None),
    ("words in backticks", UNAVAILABLE, "no voice `model not loaded`", None, None, None),
    ("words in other quotes", UNKNOWN, "no voice \u201cmodel not loaded\u201d", None, None, None),
    ("quotes in quotes", UNKNOWN, "no voice 'a' model not loaded 'b'", None, None, None),
    ("a quote never closed", UNKNOWN, 'no voice "a: model not loaded', None, None, None),
    (
        "words after quotes",
        UNKNOWN,
        "backend 'x' fails: model not loaded, don't retry",
        None,
        NOT_LOADED,
        "text",
    ),
    ("connection refused", UNAVAILABLE, "connection refused", None, None, None),
    ("uncaught", UNKNOWN, "Exception calling application: division by zero", None, None, None),
    ("not found", NOT_FOUND, "voice 'alloy' not found", None, None, None),
    ("foreign under UNKNOWN", UNKNOWN, "no", [FOREIGN], None, None),
]

# A guard vouches that it held the model when the handler failed: name, code, message, details,
# value of the trailer, condition, evidence, the model.
_HELD: list[tuple[str, int, str, list[bytes], str, str | None, str | None, str | None]] = [
    ("held, the words", UNKNOWN, SAID, [], "tiny.en", None, None, "tiny.en"),
    ("held, the code", FAILED_PRECONDITION, "no", [], "tiny.en", None, None, "tiny.en"),
    ("held, no name", FAILED_PRECONDITION, SAID, [], "1", None, None, "1"),
    ("held, percent-encoded", UNKNOWN, SAID, [], "%E8%AA%9E%20a%25", None, None, "語 a%"),
    ("held, details", FAILED_PRECONDITION, "no", [TYPED], "m", NOT_LOADED, "details", "m"),
    ("held, foreign details", FAILED_PRECONDITION, SAID, [FOREIGN], "m", None, None, "m"),
    ("held, empty", UNKNOWN, SAID, [], "", NOT_LOADED, "text", None),
]


def rows() -> dict[str, Any]:
    """Return what vectors.json holds."""
    detect: list[Row] = [
        {
            "name": name,
            "code": code,
            "message": message,
            "details_hex": None if details is None else [value.hex() for value in details],
            "condition": condition,
            "evidence": evidence,
        }
        for name, code, message, details, condition, evidence in _DETECTED
    ]
    detect += [
        {
            "name": name,
            "code": code,
            "message": message,
            "details_hex": [each.hex() for each in details],
            "trailers": [["grpcerrors-held", value]],
            "condition": condition,
            "evidence": evidence,
            "held": held,
        }
        for name, code, message, details, value, condition, evidence, held in _HELD
    ]
    return {"version": 1, "build": _built(), "detect": detect}


if __name__ == "__main__":
    PATH.write_text(json.dumps(rows(), indent=1) + "\n", encoding="ascii")
