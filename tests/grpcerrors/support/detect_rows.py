"""Errors as a client meets them, with the answer that the contract asks for.

The answers are stated here by hand, never taken from the library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence


PLAIN, HELD = "grpcerrors-unexecuted", "grpcerrors-held"

UNKNOWN, INVALID_ARGUMENT, NOT_FOUND = 2, 3, 5
FAILED_PRECONDITION, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 9, 12, 13, 14

Row = dict[str, Any]


def _info(reason: str, domain: str = "grpcerrors", /, **metadata: str) -> any_pb2.Any:
    info = error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)
    url = "type.googleapis.com/google.rpc.ErrorInfo"
    return any_pb2.Any(type_url=url, value=info.SerializeToString(deterministic=True))


def _status(code: int, message: str, *details: any_pb2.Any) -> bytes:
    return status_pb2.Status(code=code, message=message, details=details).SerializeToString(
        deterministic=True
    )


def _retry(seconds: int, nanos: int = 0) -> any_pb2.Any:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.seconds, retry.retry_delay.nanos = seconds, nanos
    url = "type.googleapis.com/google.rpc.RetryInfo"
    return any_pb2.Any(type_url=url, value=retry.SerializeToString())


def _loading(*others: any_pb2.Any) -> bytes:
    return _status(UNAVAILABLE, IS_LOADING, _info("MODEL_LOADING", backend="x"), *others)


def _prefixed(detail: any_pb2.Any, prefix: str) -> any_pb2.Any:
    return any_pb2.Any(type_url=f"{prefix}google.rpc.ErrorInfo", value=detail.value)


SAID = "x: model not loaded"
IS_LOADING = "x: model is loading"
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

STARTED = _status(FAILED_PRECONDITION, SAID, _info("MODEL_NOT_LOADED", backend="x", started="true"))
CONTRADICTORY = _status(
    FAILED_PRECONDITION, SAID, _info("MODEL_NOT_LOADED"), _info("MODEL_MISMATCH")
)

NOT_LOADED, MISMATCH, LOADING = "MODEL_NOT_LOADED", "MODEL_MISMATCH", "MODEL_LOADING"
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
        "Go, wrapped",
        UNKNOWN,
        f"predict: rpc error: code = FailedPrecondition desc = {SAID}",
        None,
        NOT_LOADED,
        "text",
    ),
    (
        "Go, wrapped, a user's",
        UNKNOWN,
        f"language: rpc error: code = FailedPrecondition desc = {SAID}",
        None,
        None,
        None,
    ),
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
    ("white space around", UNKNOWN, " \t\r\nx: model not loaded\r\n", None, NOT_LOADED, "text"),
    *(
        (name, UNKNOWN, message, None, NOT_LOADED, "text")
        for name, message in {
            "after a wrapper": "rpc error: code = Unknown desc = x: model not loaded",
            "after two wrappers": "Error: inference failed: RuntimeError: model not loaded",
            "after a name and no colon": "kimodo model is not loaded",
            "words beside an apostrophe": "the backend's model isn't loaded",
            "name in single quotes": "model 'tiny' is not loaded",
            "name in typographic quotes": "model \u201ctiny\u201d is not loaded, sorry",
            "name in two kinds of quotes": "model 'tiny\" is not loaded",
            "name with an apostrophe": "model 'tom's' is not loaded",
            "more quotes in a name": "model `a' \u00bbb\" `c` is not loaded",
        }.items()
    ),
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
    # Two reasons in one error decide nothing, but they explain the code.
    ("two reasons, the words", UNKNOWN, SAID, [CONTRADICTORY], NOT_LOADED, "text"),
    ("two reasons, the code", FAILED_PRECONDITION, "no", [CONTRADICTORY], None, None),
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
    *(
        (name, UNKNOWN, message, None, None, None)
        for name, message in {
            "newline before the words": "oops\nx: model not loaded",
            "words after a quoted name": "model 'a' not loaded' is no voice",
            "words after bytes of Python": "model b'a' not loaded' is no voice",
            "a name's quote never closed": "model 'a is not loaded",
            "words after a handler's own": "unsupported language: model not loaded",
            "words after a voice": "voice: x: model not loaded",
            "words after a verb": "open model not loaded",
            "words before an error of a file": "model not loaded.wav: No such file or directory",
            "words before what users do wrong": "model not loaded is not a voice",
        }.items()
    ),
    (
        "words after quotes",
        UNKNOWN,
        "backend 'x' fails: model not loaded, don't retry",
        None,
        NOT_LOADED,
        "text",
    ),
    # Loading: the words count as a whole sentence only, and the code says nothing.
    ("loading, the words", UNAVAILABLE, IS_LOADING, None, LOADING, "text"),
    (
        "loading, raised in Python",
        UNKNOWN,
        "Exception calling application: x: model is loading",
        None,
        LOADING,
        "text",
    ),
    ("loading, words within a sentence", UNAVAILABLE, "the model is loading", None, None, None),
    ("loading, words before others", UNAVAILABLE, "x: model is loading a", None, None, None),
    ("loading, under INTERNAL", INTERNAL, IS_LOADING, None, None, None),
    ("loading, capitals", UNAVAILABLE, "X: MODEL IS LOADING", None, None, None),
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

# The plain trailer: name, code, message, details, its values, condition, evidence, unexecuted.
_PLAIN: list[tuple[str, int, str, list[bytes], list[str], str | None, str | None, bool]] = [
    # A hop that strips or breaks the details leaves it.
    ("plain, details stripped", UNKNOWN, "no", [], [NOT_LOADED], NOT_LOADED, "trailer", True),
    ("plain, details empty", UNKNOWN, "no", [b""], [NOT_LOADED], NOT_LOADED, "trailer", True),
    ("plain, details broken", UNKNOWN, "no", [TYPED[:-9]], [MISMATCH], MISMATCH, "trailer", True),
    ("plain, other words", UNKNOWN, SAID, [], [MISMATCH], MISMATCH, "trailer", True),
    ("plain, loading", UNAVAILABLE, "", [], [LOADING], LOADING, "trailer", True),
    ("plain, live", UNIMPLEMENTED, "", [], [NO_LIVE], NO_LIVE, "trailer", True),
    ("plain, spaces around", UNKNOWN, "no", [], [f" {MISMATCH} "], MISMATCH, "trailer", True),
    ("plain twice the same", UNKNOWN, "no", [], [MISMATCH] * 2, MISMATCH, "trailer", True),
    # Details win, whichever they are.
    ("plain beside details", UNKNOWN, SAID, [TYPED], [NOT_LOADED], NOT_LOADED, "details", True),
    ("plain, other details", UNKNOWN, SAID, [MISMATCHED], [NOT_LOADED], MISMATCH, "details", True),
    ("plain, had begun", UNKNOWN, SAID, [STARTED], [NOT_LOADED], NOT_LOADED, "details", False),
    ("plain, unknown details", UNKNOWN, SAID, [UNHEARD_OF], [NOT_LOADED], None, "details", False),
    ("plain, at odds", UNKNOWN, "no", [CONTRADICTORY], [NOT_LOADED], None, None, False),
    (
        "plain, details that differ",
        UNKNOWN,
        "no",
        [TYPED, OTHER_TYPED],
        [NOT_LOADED],
        NOT_LOADED,
        "trailer",
        True,
    ),
    ("plain, foreign details", UNKNOWN, "no", [FOREIGN], [MISMATCH], MISMATCH, "trailer", True),
    # An unknown reason vetoes words and code. The request was not executed all the same.
    ("plain, unknown reason", UNKNOWN, SAID, [], ["FROM_THE_FUTURE"], None, "trailer", True),
    ("plain, lower case", UNKNOWN, SAID, [], ["model_not_loaded"], None, "trailer", True),
    # Another domain explains the code, as foreign details do.
    ("plain, foreign", FAILED_PRECONDITION, "no", [], ["example.com/QUOTA"], None, None, False),
    ("plain, foreign, words", UNKNOWN, SAID, [], ["example.com/QUOTA"], NOT_LOADED, "text", True),
    (
        "plain, domain never decoded",
        FAILED_PRECONDITION,
        "no",
        [],
        ["grpcerror%73/MODEL_MISMATCH"],
        None,
        None,
        False,
    ),
    ("plain, ours in full", UNKNOWN, "", [], [f"grpcerrors/{LOADING}"], LOADING, "trailer", True),
    # What says nothing, or two things at once, counts as absent.
    ("plain, empty", UNKNOWN, SAID, [], [""], NOT_LOADED, "text", True),
    ("plain, two that differ", UNKNOWN, SAID, [], [MISMATCH, LOADING], NOT_LOADED, "text", True),
    ("plain, no reason", UNKNOWN, SAID, [], ["example.com/"], NOT_LOADED, "text", True),
]

# The delay of a RetryInfo: name, details, seconds.
_DELAYED: list[tuple[str, bytes, float | None]] = [
    ("loading", _loading(_retry(2)), 2.0),
    ("loading, a fraction", _loading(_retry(1, 500_000_000)), 1.5),
    ("loading, at once", _loading(_retry(0)), 0.0),
    ("loading, two delays", _loading(_retry(4), _retry(5)), 4.0),
    ("loading, the first delay invalid", _loading(_retry(-1), _retry(5)), 5.0),
    ("loading, no delay", _loading(), None),
    ("loading, negative delay", _loading(_retry(-1)), None),
    ("loading, negative nanoseconds", _loading(_retry(1, -1)), None),
    ("loading, too many nanoseconds", _loading(_retry(1, 1_000_000_000)), None),
    ("loading, more than a Duration holds", _loading(_retry(315_576_000_001)), None),
    (
        "loading, RetryInfo first",
        _status(UNAVAILABLE, IS_LOADING, _retry(3), _info("MODEL_LOADING")),
        3.0,
    ),
]


def _detect(
    name: str,
    code: int,
    message: str,
    details: list[bytes] | None,
    condition: str | None,
    evidence: str | None,
    *,
    trailers: Sequence[tuple[str, str]] = (),
    unexecuted: bool | None = None,
    retry_after: float | None = None,
    held: str | None = None,
) -> Row:
    proved = evidence in ("details", "text") and condition is not None
    return {
        "name": name,
        "code": code,
        "message": message,
        "details_hex": None if details is None else [value.hex() for value in details],
        "trailers": [list(pair) for pair in trailers],
        "condition": condition,
        "evidence": evidence,
        "unexecuted": proved if unexecuted is None else unexecuted,
        "retry_after": retry_after,
        "held": held,
    }


def detect_rows() -> list[Row]:
    """Return the detect rows of vectors.json."""
    detect = [_detect(*row) for row in _DETECTED]
    for name, code, message, details, value, condition, evidence, held in _HELD:
        row = (name, code, message, details, condition, evidence)
        detect.append(_detect(*row, trailers=[(HELD, value)], held=held))
    for name, code, message, details, values, condition, evidence, unexecuted in _PLAIN:
        row = (name, code, message, details, condition, evidence)
        trailers = [(PLAIN, value) for value in values]
        detect.append(_detect(*row, trailers=trailers, unexecuted=unexecuted))
    detect.append(
        _detect(
            "held, two that differ",
            UNKNOWN,
            SAID,
            [],
            None,
            None,
            trailers=[(HELD, "m"), (HELD, "n")],
            held="m",
        )
    )
    detect.append(
        _detect(
            "plain, held",
            UNKNOWN,
            SAID,
            [],
            MISMATCH,
            "trailer",
            trailers=[(HELD, "m"), (PLAIN, MISMATCH)],
            unexecuted=True,
            held="m",
        )
    )
    detect += [
        _detect(
            name, UNAVAILABLE, IS_LOADING, [details], LOADING, "details", retry_after=retry_after
        )
        for name, details, retry_after in _DELAYED
    ]
    return detect
