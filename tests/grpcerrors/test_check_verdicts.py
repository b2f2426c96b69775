"""What each answer is worth."""

from __future__ import annotations

from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import (
    MODEL_LOADING,
    Condition,
    ContractError,
    ModelGuard,
    live_transcription_unsupported,
    model_loading,
    model_mismatch,
    model_not_loaded,
)
from grpcerrors._wire import UNEXECUTED_KEY
from grpcerrors.cli._protocols import PROTOCOLS
from grpcerrors_protocol import backend_pb2, backend_pb2_grpc
from tests.grpcerrors.support import backend_server as backend
from tests.grpcerrors.support.command import check, run

if TYPE_CHECKING:
    from collections.abc import Iterator

TYPED = backend.fails(model_not_loaded("x"))
PLAIN = backend.aborts(grpc.StatusCode.FAILED_PRECONDITION, "x: model not loaded")

Capture = pytest.CaptureFixture[str]


ANSWERS = [
    pytest.param(TYPED, "typed", "FAILED_PRECONDITION", id="typed"),
    pytest.param(PLAIN, "text only", "FAILED_PRECONDITION", id="text"),
    pytest.param(
        backend.aborts(grpc.StatusCode.FAILED_PRECONDITION, "warm up first"),
        "code only",
        "FAILED_PRECONDITION",
        id="code",
    ),
    pytest.param(backend.answers, "invisible", "OK", id="success"),
    pytest.param(
        backend.aborts(grpc.StatusCode.INTERNAL, "synthesis failed"),
        "invisible",
        "INTERNAL",
        id="unreadable",
    ),
    pytest.param(backend.never_ends, "invisible", None, id="endless stream"),
    pytest.param(
        backend.speaks_once,
        "invisible",
        "DEADLINE_EXCEEDED",
        id="stalled stream",
        marks=pytest.mark.slow,
    ),
    pytest.param(backend.hangs, "timed out", "DEADLINE_EXCEEDED", id="hangs"),
    pytest.param(
        backend.fails(model_mismatch("x", loaded="a", requested="b")),
        "wrong",
        "NOT_FOUND",
        id="typed as something else",
    ),
    pytest.param(
        backend.aborts(
            grpc.StatusCode.NOT_FOUND, 'x: model identity mismatch: loaded "a", requested "b"'
        ),
        "wrong",
        "NOT_FOUND",
        id="said as something else",
    ),
    pytest.param(
        backend.fails(live_transcription_unsupported("x", "offline")),
        "not implemented",
        "UNIMPLEMENTED",
        id="typed as unsupported",
    ),
    pytest.param(
        backend.aborts(grpc.StatusCode.UNKNOWN, "unimplemented"),
        "not implemented",
        "UNKNOWN",
        id="a stub that says unimplemented",
    ),
]


@pytest.mark.parametrize(("handler", "verdict", "code"), ANSWERS)
def test_each_answer_has_its_verdict(
    capsys: Capture, handler: backend.Handler, verdict: str, code: str | None
) -> None:
    with backend.serve({"Predict": handler}) as port:
        checked = check(capsys, port, "--method", "Predict", "--timeout", "2")
    (row,) = checked.rows
    assert (row["verdict"], row["code"]) == (verdict, code)
    assert checked.exit_code == (0 if verdict == "typed" else 1)
    assert checked.report["conforming"] == (verdict == "typed")


def test_details_under_a_wrong_code_are_not_conforming(capsys: Capture) -> None:
    error = model_not_loaded("x")
    error.code = grpc.StatusCode.INTERNAL
    with backend.serve({"Predict": backend.fails(error)}) as port:
        checked = check(capsys, port, "--method", "Predict")
    assert checked.exit_code == 1
    (row,) = checked.rows
    assert (row["verdict"], row["evidence"]) == ("wrong", "details")
    assert row["why"] == "the right details under INTERNAL instead of FAILED_PRECONDITION"


def test_a_reason_of_the_contracts_domain_that_is_none_is_wrong(capsys: Capture) -> None:
    condition = Condition(reason="ODD", code=grpc.StatusCode.ABORTED, message="odd")
    with backend.serve({"Predict": backend.fails(ContractError(condition))}) as port:
        checked = check(capsys, port, "--method", "Predict")
    (row,) = checked.rows
    assert row["verdict"] == "wrong"
    assert row["why"] == "its details say ODD, which is not a condition of the contract"


def test_the_text_inside_a_result_is_shown(capsys: Capture) -> None:
    result = backend_pb2.Result(message="Model not loaded").SerializeToString()
    with backend.serve({"TTS": lambda *_: iter([result])}) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
    assert ran.exit_code == 1
    assert "Model not loaded" in ran.out
    assert "TTS: it answers OK with an error inside" in ran.out


class Careless(backend_pb2_grpc.BackendServicer):
    """A backend that thinks of no model that is missing."""

    def Predict(self, request: Any, context: Any) -> Any:
        return backend_pb2.Reply()

    def AudioTranscriptionLive(self, requests: Any, context: Any) -> Any:
        yield from (backend_pb2.TranscriptLiveResponse() for _ in requests)


@pytest.mark.parametrize("guards", [(), (ModelGuard("x"),)], ids=["without", "with"])
def test_the_guard_makes_a_careless_backend_conform(capsys: Capture, guards: Any) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(2), interceptors=guards)
    backend_pb2_grpc.add_BackendServicer_to_server(Careless(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        checked = check(capsys, port)
    finally:
        server.stop(grace=None).wait()
    verdict = "typed" if guards else "invisible"
    assert checked.implemented == dict.fromkeys(["AudioTranscriptionLive", "Predict"], verdict)
    assert checked.exit_code == (0 if guards else 1)


@pytest.mark.slow
def test_a_backend_that_hangs_in_every_rpc_is_not_waited_for(capsys: Capture) -> None:
    called = PROTOCOLS["localai"].called
    with backend.serve(dict.fromkeys(called, backend.hangs)) as port:
        checked = check(capsys, port, "--timeout", "1")
    assert checked.exit_code == 1
    assert checked.implemented == dict.fromkeys(called, "timed out")


def test_nothing_implemented_is_not_conforming(capsys: Capture) -> None:
    with backend.serve({"Health": backend.answers}) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
    assert ran.exit_code == 1
    assert "no RPC that was called is implemented" in ran.out
    assert "--service" in ran.out


def sends(code: grpc.StatusCode, *trailers: tuple[str, str | bytes]) -> backend.Handler:
    def handler(_: bytes, context: Any) -> Iterator[bytes]:
        context.set_trailing_metadata(trailers)
        context.abort(code, "x: model not loaded")
        yield b""

    return handler


def after_headers(request: bytes, context: Any) -> Iterator[bytes]:
    # gRPC joins empty headers with the trailers, if both are there when it writes.
    context.send_initial_metadata((("begun", "1"),))
    yield from TYPED(request, context)


def after_messages(request: bytes, context: Any) -> Iterator[bytes]:
    yield from (b"", b"")
    yield from TYPED(request, context)


NOT_LOADED = grpc.StatusCode.FAILED_PRECONDITION
DETAILS = dict(model_not_loaded("x").trailing_metadata)["grpc-status-details-bin"]
STARTED = dict(model_not_loaded("x", started=True).trailing_metadata)["grpc-status-details-bin"]
BEGUN = "it says that the handler had begun"
LACKS = f"it lacks the trailer {UNEXECUTED_KEY}, so proxies cannot send the call again"
PROXIES = [
    pytest.param(TYPED, "typed", True, "", id="all"),
    pytest.param(
        sends(NOT_LOADED, ("grpc-status-details-bin", DETAILS)),
        "typed",
        False,
        LACKS,
        id="no plain trailer",
    ),
    pytest.param(
        sends(NOT_LOADED, (UNEXECUTED_KEY, "MODEL_NOT_LOADED")),
        "typed",
        True,
        "it has no details",
        id="only the plain trailer",
    ),
    pytest.param(
        sends(
            NOT_LOADED,
            ("grpc-status-details-bin", DETAILS),
            (UNEXECUTED_KEY, "MODEL_LOADING"),
        ),
        "wrong",
        None,
        f"its details say MODEL_NOT_LOADED, its trailer {UNEXECUTED_KEY} says MODEL_LOADING",
        id="another plain trailer",
    ),
    pytest.param(
        sends(
            NOT_LOADED,
            ("grpc-status-details-bin", STARTED),
            (UNEXECUTED_KEY, "MODEL_NOT_LOADED"),
        ),
        "wrong",
        None,
        f"{BEGUN}, and has the trailer {UNEXECUTED_KEY}, so a proxy may run the request twice",
        id="started with the plain trailer",
    ),
    pytest.param(
        backend.fails(model_not_loaded("x", started=True)),
        "typed",
        False,
        f"{BEGUN}, so it cannot be sent again",
        id="started",
    ),
    pytest.param(
        after_headers,
        "typed",
        False,
        "headers went out before the error, so proxies cannot send the call again",
        id="after headers",
    ),
    pytest.param(
        after_messages,
        "typed",
        False,
        "2 messages went out before the error, so proxies cannot send the call again",
        id="after messages",
    ),
    pytest.param(
        sends(NOT_LOADED, (UNEXECUTED_KEY, "MODEL_LOST")),
        "wrong",
        None,
        "its details say MODEL_LOST, which is not a condition of the contract",
        id="an unknown plain trailer",
    ),
    pytest.param(PLAIN, "text only", None, "", id="words"),
    pytest.param(
        backend.fails(ContractError(MODEL_LOADING, backend="x")),
        "typed",
        True,
        "it has no RetryInfo, so a router has to guess when to try again",
        id="loading without RetryInfo",
    ),
]


@pytest.mark.parametrize(("handler", "verdict", "resendable", "why"), PROXIES)
def test_what_a_proxy_can_send_again_is_told(
    capsys: Capture, handler: backend.Handler, verdict: str, resendable: object, why: str
) -> None:
    with backend.serve({"Predict": handler}) as port:
        checked = check(capsys, port, "--method", "Predict")
    (row,) = checked.rows
    assert (row["verdict"], row["resendable"], row["why"]) == (verdict, resendable, why)


def test_what_proxies_cannot_send_again_conforms_and_is_told(capsys: Capture) -> None:
    with backend.serve({"Predict": TYPED, "TTS": after_headers, "VAD": after_headers}) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
    assert ran.exit_code == 0
    assert "  TTS, VAD: headers went out before the error" in ran.out
    assert "answers with the typed error. Proxies can send 1 of 3 again." in ran.out


def test_a_load_that_is_under_way_is_waited_for(capsys: Capture) -> None:
    with backend.serve({"Predict": backend.fails(model_loading("x"))}) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
        checked = check(capsys, port, "--method", "Predict")
    assert ran.exit_code == 0
    assert "A load is under way: wait until it has ended, and check again." in ran.out
    (row,) = checked.rows
    assert (row["verdict"], row["condition"], row["code"], row["resendable"]) == (
        "typed",
        "MODEL_LOADING",
        "UNAVAILABLE",
        True,
    )


def test_a_bare_unimplemented_is_no_condition(capsys: Capture) -> None:
    with backend.serve({}) as port:
        (row,) = check(capsys, port, "--method", "AudioDecode").rows
    assert (row["verdict"], row["condition"], row["evidence"]) == ("not implemented", None, None)
