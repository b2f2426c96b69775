from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import (
    Condition,
    ContractError,
    ModelGuard,
    live_transcription_unsupported,
    model_mismatch,
    model_not_loaded,
)
from grpcerrors.cli import _connection
from grpcerrors.cli._rpcs import (
    CONTROL_PLANE,
    INFERENCE,
    RESULTS,
    SERVICE,
    is_loaded,
    refusal_inside,
)
from grpcerrors_protocol import backend_pb2, backend_pb2_grpc
from tests.grpcerrors.support import backend_server as backend
from tests.grpcerrors.support.command import run

if TYPE_CHECKING:
    from collections.abc import Iterator

TYPED = backend.fails(model_not_loaded("x"))
PLAIN = backend.aborts(grpc.StatusCode.FAILED_PRECONDITION, "x: model not loaded")
DENIED = backend.aborts(grpc.StatusCode.PERMISSION_DENIED, "no")

Capture = pytest.CaptureFixture[str]


def check(capsys: Capture, port: int, *args: str) -> tuple[int, dict[str, Any]]:
    ran = run(capsys, "check", f"127.0.0.1:{port}", "--json", *args)
    return ran.exit_code, json.loads(ran.out)


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {row["rpc"]: row["verdict"] for row in report["rpcs"]}


def implemented(report: dict[str, Any]) -> dict[str, str]:
    return {rpc: said for rpc, said in verdicts(report).items() if said != "not implemented"}


def test_the_built_in_list_is_the_inference_rpcs_of_the_protocol() -> None:
    service = backend_pb2.DESCRIPTOR.services_by_name["Backend"]
    offered = {method.name for method in service.methods}
    assert offered == INFERENCE | CONTROL_PLANE
    assert not INFERENCE & CONTROL_PLANE
    answers = {method.name: method.output_type.name for method in service.methods}
    assert {name for name in INFERENCE if answers[name] == "Result"} == RESULTS


def test_the_messages_that_are_read_are_those_of_the_protocol() -> None:
    states = {"UNINITIALIZED": False, "BUSY": True, "READY": True, "ERROR": False}
    for state, loaded in states.items():
        status = backend_pb2.StatusResponse(state=state)
        assert is_loaded(status.SerializeToString()) == loaded
    for result in (backend_pb2.Result(message="no model"), backend_pb2.Result()):
        assert refusal_inside(SERVICE, "TTS", result.SerializeToString()) == result.message
    success = backend_pb2.Result(message="done", success=True)
    assert refusal_inside(SERVICE, "TTS", success.SerializeToString()) is None
    assert refusal_inside(SERVICE, "Predict", b"") is None
    assert refusal_inside("acme.Speech", "TTS", b"") is None
    assert refusal_inside(SERVICE, "TTS", b"\xff") is None
    assert not is_loaded(b"\xff")


def test_a_conforming_backend_passes(capsys: Capture) -> None:
    with backend.serve({"Predict": TYPED, "TTS": TYPED}) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
    assert ran.exit_code == 0
    assert "2 typed, 32 not implemented" in ran.out
    assert "Conforming: every implemented RPC" in ran.out
    assert "\x1b" not in ran.out
    assert max(map(len, ran.out.splitlines())) <= 100


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
        exit_code, report = check(capsys, port, "--method", "Predict", "--timeout", "2")
    (row,) = report["rpcs"]
    assert (row["verdict"], row["code"]) == (verdict, code)
    assert exit_code == (0 if verdict == "typed" else 1)
    assert report["conforming"] == (exit_code == 0)


def test_details_under_a_wrong_code_are_not_conforming(capsys: Capture) -> None:
    error = model_not_loaded("x")
    error.code = grpc.StatusCode.INTERNAL
    with backend.serve({"Predict": backend.fails(error)}) as port:
        exit_code, report = check(capsys, port, "--method", "Predict")
    assert exit_code == 1
    assert verdicts(report) == {"Predict": "wrong"}
    assert report["rpcs"][0]["evidence"] == "details"
    why = "the right details under INTERNAL instead of FAILED_PRECONDITION"
    assert report["rpcs"][0]["why"] == why


def test_a_backend_without_the_contract_is_told_what_to_do(capsys: Capture) -> None:
    rpcs = {
        "Predict": TYPED,
        "PredictStream": backend.aborts(grpc.StatusCode.INTERNAL, "late", after=2),
        "Score": PLAIN,
        "VAD": backend.aborts(grpc.StatusCode.UNKNOWN, "\x1b[31mred\n" + "and long " * 50),
    }
    with backend.serve(rpcs) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
    assert ran.exit_code == 1
    assert "1 typed, 1 text only, 2 invisible, 30 not implemented" in ran.out
    assert "(after 2 messages) late" in ran.out
    assert "\\x1b[31mred\\nand long" in ran.out
    assert "\x1b" not in ran.out
    assert max(map(len, ran.out.splitlines()[:-1])) <= 100
    assert "a router has to guess from the words" in ran.out
    assert "interceptors=[ModelGuard(NAME)]" in ran.out
    again = "--method PredictStream --method Score --method VAD\n"
    assert f"grpcerrors check 127.0.0.1:{port} {again}" in ran.out


def test_the_command_to_check_again_stays_on_one_line(capsys: Capture) -> None:
    rpcs = dict.fromkeys(("Predict", "PredictStream", "AudioTranscription", "TTS", "VAD"), PLAIN)
    with backend.serve(rpcs) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
    line = ran.out.splitlines()[-1]
    assert line.startswith(f"Check again: grpcerrors check 127.0.0.1:{port} --method ")
    assert line.count("--method") == len(rpcs)


def test_a_terminal_gets_colors_and_its_own_width(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with backend.serve({"Predict": TYPED}) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}", "--method", "Predict")
    assert "\x1b[32mtyped" in ran.out
    assert max(line.count("─") for line in ran.out.splitlines()) == 78


def test_json_is_what_the_docs_say(capsys: Capture) -> None:
    rpcs = {"Predict": TYPED, "TTS": backend.answers, "VAD": backend.never_ends}
    methods = ("--method", "Predict", "--method", "TTS", "--method", "VAD", "--method", "TTS")
    with backend.serve(rpcs) as port:
        _, report = check(capsys, port, *methods)
    assert report == {
        "version": 1,
        "address": f"127.0.0.1:{port}",
        "service": "backend.Backend",
        "source": "command line",
        "conforming": False,
        "rpcs": [
            {
                "rpc": "Predict",
                "verdict": "typed",
                "code": "FAILED_PRECONDITION",
                "message": "x: model not loaded",
                "messages": 0,
                "condition": "MODEL_NOT_LOADED",
                "evidence": "details",
                "why": "",
            },
            {
                "rpc": "TTS",
                "verdict": "invisible",
                "code": "OK",
                "message": "",
                "messages": 1,
                "condition": None,
                "evidence": None,
                "why": "it answers OK with success=false inside, where no router looks",
            },
            {
                "rpc": "VAD",
                "verdict": "invisible",
                "code": None,
                "message": "still streaming after 100 messages",
                "messages": 100,
                "condition": None,
                "evidence": None,
                "why": "",
            },
        ],
        "uncalled": [],
    }


def test_long_texts_are_whole_in_json(capsys: Capture) -> None:
    text = "long " * 500
    with backend.serve({"Predict": backend.aborts(grpc.StatusCode.INTERNAL, text)}) as port:
        _, report = check(capsys, port, "--method", "Predict")
    assert report["rpcs"][0]["message"] == text


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
        exit_code, report = check(capsys, port)
    finally:
        server.stop(grace=None).wait()
    verdict = "typed" if guards else "invisible"
    assert implemented(report) == dict.fromkeys(["AudioTranscriptionLive", "Predict"], verdict)
    assert exit_code == (0 if guards else 1)


@pytest.mark.slow
def test_a_backend_that_hangs_in_every_rpc_is_not_waited_for(capsys: Capture) -> None:
    with backend.serve(dict.fromkeys(INFERENCE, backend.hangs)) as port:
        exit_code, report = check(capsys, port, "--timeout", "1")
    assert exit_code == 1
    assert implemented(report) == dict.fromkeys(sorted(INFERENCE), "timed out")


def test_nothing_implemented_is_not_conforming(capsys: Capture) -> None:
    with backend.serve({"Health": backend.answers}) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
    assert ran.exit_code == 1
    assert "no RPC that was called is implemented" in ran.out
    assert "--service" in ran.out


def test_rpcs_that_are_not_implemented_are_shown_on_demand(capsys: Capture) -> None:
    with backend.serve({"Predict": TYPED}) as port:
        short = run(capsys, "check", f"127.0.0.1:{port}")
        whole = run(capsys, "check", f"127.0.0.1:{port}", "--all-rows")
    assert "VAD" not in short.out
    assert "VAD" in whole.out
    assert "1 typed, 33 not implemented" in short.out


class Service:
    """A service that nobody knows, which remembers what was called."""

    NAME = "acme.Speech"
    RPCS = ("DeleteAllModels", "LoadModel", "Say", "Shutdown")

    def __init__(self) -> None:
        self.called: list[str] = []
        self.rpcs = {name: self._handler(name) for name in self.RPCS}

    def _handler(self, name: str) -> backend.Handler:
        def handler(request: bytes, context: Any) -> Iterator[bytes]:
            self.called.append(name)
            yield from TYPED(request, context)

        return handler

    @contextlib.contextmanager
    def serve(self, *more: Any) -> Iterator[int]:
        with backend.serve(self.rpcs, *more, service=self.NAME) as port:
            yield port


def test_of_a_service_that_nobody_knows_nothing_is_called(capsys: Capture) -> None:
    service = Service()
    with service.serve(backend.describes("v1", Service.NAME, Service.RPCS)) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}", "--service", Service.NAME)
    assert ran.exit_code == 2
    assert "with --method, or call all with --all" in ran.err
    assert "It offers DeleteAllModels, LoadModel, Say, Shutdown" in ran.err
    assert service.called == []


def test_without_reflection_nothing_of_it_is_called_either(capsys: Capture) -> None:
    service = Service()
    with service.serve() as port:
        for more in ((), ("--all",)):
            ran = run(capsys, "check", f"127.0.0.1:{port}", "--service", Service.NAME, *more)
            assert ran.exit_code == 2
            assert "has no server reflection: name those that need a model" in ran.err
    assert service.called == []


def test_of_a_service_that_nobody_knows_what_is_named_is_called(capsys: Capture) -> None:
    service = Service()
    with service.serve(backend.describes("v1", Service.NAME, Service.RPCS)) as port:
        named = ("--service", Service.NAME, "--method", "Say")
        exit_code, report = check(capsys, port, *named)
        assert (exit_code, verdicts(report)) == (0, {"Say": "typed"})
        assert service.called == ["Say"]
        exit_code, report = check(capsys, port, "--service", Service.NAME, "--all")
    assert exit_code == 0
    assert sorted(service.called[1:]) == ["DeleteAllModels", "Say", "Shutdown"]


def test_the_guard_is_not_offered_to_services_that_it_does_not_know(capsys: Capture) -> None:
    rpcs = {"Say": PLAIN}
    with backend.serve(rpcs, service=Service.NAME) as port:
        named = ("--service", Service.NAME, "--method", "Say")
        ran = run(capsys, "check", f"127.0.0.1:{port}", *named)
    assert ran.exit_code == 1
    assert "ModelGuard" not in ran.out
    assert "CONTRACT.md says what each RPC must answer" in ran.out
    assert f"check 127.0.0.1:{port} --service acme.Speech --method Say" in ran.out


def test_rpcs_that_a_newer_protocol_has_are_not_called(capsys: Capture) -> None:
    names = ("Predict", "DeleteEverything", "LoadModel")
    reflection = backend.describes("v1", backend.SERVICE, names)
    with backend.serve({"Predict": TYPED, "DeleteEverything": TYPED}, reflection) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
        _, report = check(capsys, port)
        _, whole = check(capsys, port, "--all")
    assert ran.exit_code == 0
    assert "Not called, because they may change something: DeleteEverything." in ran.out
    assert (list(verdicts(report)), report["uncalled"]) == (["Predict"], ["DeleteEverything"])
    assert list(verdicts(whole)) == ["DeleteEverything", "Predict"]


@pytest.mark.parametrize("state", ["READY", "BUSY"])
def test_a_loaded_model_is_no_accusation(capsys: Capture, state: str) -> None:
    status = backend_pb2.StatusResponse(state=state).SerializeToString()
    rpcs = {"Status": lambda *_: iter([status]), "Predict": backend.answers}
    with backend.serve(rpcs) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
        named = run(capsys, "check", f"127.0.0.1:{port}", "--method", "Predict")
    assert ran.exit_code == 2
    assert "a model is loaded" in ran.err
    assert "restart the backend or Free the model" in ran.err
    assert named.exit_code == 1
    assert "A model is loaded, according to Status, so these answers prove nothing" in named.out
    assert "Not conforming" not in named.out


def test_a_status_that_says_otherwise_changes_nothing(capsys: Capture) -> None:
    status = backend_pb2.StatusResponse().SerializeToString()
    with backend.serve({"Status": lambda *_: iter([status]), "Predict": TYPED}) as port:
        assert check(capsys, port)[0] == 0


def test_a_router_is_recognized_by_its_services(capsys: Capture) -> None:
    fleet = backend.describes("v1", "fleet.v1.Fleet", ("Heartbeat",))
    with backend.serve({"Predict": TYPED}, fleet) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
    assert ran.exit_code == 2
    assert "is a router" in ran.err


def test_a_router_is_recognized_by_its_errors(capsys: Capture) -> None:
    condition = Condition(
        reason="NO_MODEL_KEY", code=grpc.StatusCode.INVALID_ARGUMENT, message="which model?"
    )
    with backend.serve({"Status": backend.fails(ContractError(condition))}) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
    assert ran.exit_code == 2
    assert "is a router" in ran.err


def test_the_text_inside_a_result_is_shown(capsys: Capture) -> None:
    result = backend_pb2.Result(message="Model not loaded").SerializeToString()
    with backend.serve({"TTS": lambda *_: iter([result])}) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
    assert ran.exit_code == 1
    assert "Model not loaded" in ran.out
    assert "TTS: it answers OK with success=false inside" in ran.out


def test_a_reason_of_the_contracts_domain_that_is_none_is_wrong(capsys: Capture) -> None:
    condition = Condition(reason="ODD", code=grpc.StatusCode.ABORTED, message="odd")
    with backend.serve({"Predict": backend.fails(ContractError(condition))}) as port:
        _, report = check(capsys, port)
    assert verdicts(report)["Predict"] == "wrong"
    (row,) = (row for row in report["rpcs"] if row["rpc"] == "Predict")
    assert row["why"] == "its details say ODD, which is not a condition of the contract"


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_finds_the_rpcs(capsys: Capture, version: str) -> None:
    rpcs = {"Predict": TYPED, "Health": backend.answers}
    with backend.serve(rpcs, backend.reflects(version, backend.SERVICE)) as port:
        exit_code, report = check(capsys, port)
    assert exit_code == 0
    assert report["source"] == "server reflection"
    assert set(verdicts(report)) == INFERENCE
    assert implemented(report) == {"Predict": "typed"}


def test_reflection_finds_the_rpcs_of_another_service(capsys: Capture) -> None:
    service = "grpc.reflection.v1alpha.ServerReflection"
    with backend.serve({}, backend.reflects("v1alpha", service)) as port:
        exit_code, report = check(capsys, port, "--service", service, "--all")
    assert exit_code == 1
    assert list(verdicts(report)) == ["ServerReflectionInfo"]


def test_a_service_that_is_not_offered_is_told_with_those_that_are(capsys: Capture) -> None:
    with backend.serve({"Predict": TYPED}, backend.reflects("v1", backend.SERVICE)) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}", "--service", "backend.Backends")
    assert ran.exit_code == 2
    assert "does not offer backend.Backends; its reflection lists backend.Backend:" in ran.err
    assert ran.out == ""


BROKEN_REFLECTION = {
    "garbage": lambda *_: iter([b"\xff\xff"]),
    "no answer": lambda *_: iter([]),
    "refused": DENIED,
    "endless": backend.never_ends,
}


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize("how", BROKEN_REFLECTION)
def test_broken_reflection_is_as_none(capsys: Capture, how: str, version: str) -> None:
    broken = backend.reflects_badly(version, BROKEN_REFLECTION[how])
    with backend.serve({"Predict": TYPED}, broken) as port:
        exit_code, report = check(capsys, port)
    assert exit_code == 0
    assert report["source"] == "built-in list"
    assert implemented(report) == {"Predict": "typed"}


def test_metadata_opens_a_backend_that_asks_for_a_token(capsys: Capture) -> None:
    seen = []

    def guarded(request: bytes, context: Any) -> Iterator[bytes]:
        seen.append(given := dict(context.invocation_metadata()))
        if given.get("authorization") != "Bearer t=1":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "token")
        yield from TYPED(request, context)

    with backend.serve({"Predict": guarded}) as port:
        refused = run(capsys, "check", f"127.0.0.1:{port}", "--method", "Predict")
        token = ("--metadata", "Authorization=Bearer t=1", "--metadata", "trace-bin=AP8")
        exit_code, report = check(capsys, port, "--method", "Predict", *token)
    assert refused.exit_code == 1
    assert "--metadata 'authorization=Bearer TOKEN'" in refused.out
    assert (exit_code, verdicts(report)) == (0, {"Predict": "typed"})
    assert seen[-1]["trace-bin"] == b"\x00\xff"


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """Yield a port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_a_port_that_never_speaks_is_given_up(capsys: Capture) -> None:
    with silent_port() as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}", "--wait", "0.5")
    assert ran.exit_code == 2
    assert "did not speak gRPC within 0.5 s" in ran.err


async def test_a_failure_that_is_over_has_no_cause() -> None:
    """The server came up between the failure and the call that asks for its cause."""
    with backend.serve({"Predict": TYPED}) as port:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert await _connection._cause(channel, 30) == ""
        health = {"Check": backend.answers}
    with backend.serve(health, service="grpc.health.v1.Health") as port:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert await _connection._cause(channel, 30) == ""


def test_no_server_is_told(capsys: Capture) -> None:
    port = closed_port()
    ran = run(capsys, "check", f"127.0.0.1:{port}", "--wait", "0.5")
    assert ran.exit_code == 2
    assert ran.err.startswith(f"Error: cannot reach 127.0.0.1:{port}: ")
    assert "start the backend first" in ran.err
    assert ran.out == ""


def test_no_server_is_told_to_machines_too(capsys: Capture) -> None:
    port = closed_port()
    exit_code, report = check(capsys, port, "--wait", "0.5")
    assert exit_code == 2
    assert set(report) == {"version", "address", "error"}
    assert report["address"] == f"127.0.0.1:{port}"
    assert "cannot reach" in report["error"]


def test_a_server_that_is_still_starting_is_waited_for(capsys: Capture) -> None:
    port = closed_port()
    refused = threading.Event()

    def start() -> None:
        # The first attempts to connect have failed by then.
        refused.wait(1)
        with backend.serve({"Predict": TYPED}, port=port):
            done.wait(60)

    done = threading.Event()
    with futures.ThreadPoolExecutor(1) as pool:
        pool.submit(start)
        try:
            exit_code, _ = check(capsys, port, "--method", "Predict", "--wait", "60")
        finally:
            done.set()
    assert exit_code == 0


@pytest.mark.slow
def test_the_installed_command_checks_and_exits() -> None:
    command = Path(sys.executable).with_name("grpcerrors")
    with backend.serve({"Predict": PLAIN}) as port:
        args = [str(command), "check", f"127.0.0.1:{port}", "--method", "Predict", "--json"]
        ran = subprocess.run(args, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    assert verdicts(json.loads(ran.stdout)) == {"Predict": "text only"}
