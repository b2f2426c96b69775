"""Which RPCs are called, and which never are."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2

from grpcerrors import Condition, ContractError, model_not_loaded
from grpcerrors.cli._protocols import PROTOCOLS, RESULTS, error_inside, is_loaded
from grpcerrors_protocol import backend_pb2, inference_pb2
from tests.grpcerrors.support import backend_server as backend
from tests.grpcerrors.support.command import check, run

if TYPE_CHECKING:
    from collections.abc import Iterator

TYPED = backend.fails(model_not_loaded("x"))
PLAIN = backend.aborts(grpc.StatusCode.FAILED_PRECONDITION, "x: model not loaded")
DENIED = backend.aborts(grpc.StatusCode.PERMISSION_DENIED, "no")

Capture = pytest.CaptureFixture[str]


def test_every_rpc_of_the_built_in_protocols_is_known() -> None:
    described = {
        "localai": backend_pb2.DESCRIPTOR.services_by_name["Backend"],
        "kserve": inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
    }
    for name, service in described.items():
        known = PROTOCOLS[name]
        offered = {method.name: method for method in service.methods}
        assert offered.keys() <= known.rpcs
        assert known.called | {*known.asked, known.loaded} <= offered.keys()
        for rpc, field in known.named.items():
            assert offered[rpc].input_type.fields_by_number[1].name == field
    results = {rpc.name for rpc in described["localai"].methods if rpc.output_type.name == "Result"}
    assert results & PROTOCOLS["localai"].called == RESULTS


def test_the_messages_that_are_read_are_those_of_the_protocols() -> None:
    states = {"UNINITIALIZED": False, "BUSY": True, "READY": True, "ERROR": False}
    for state, loaded in states.items():
        status = backend_pb2.StatusResponse(state=state)
        assert is_loaded("Status", status.SerializeToString()) == loaded
    for ready in (False, True):
        answer = inference_pb2.ModelReadyResponse(ready=ready).SerializeToString()
        assert is_loaded("ModelReady", answer) == ready
    assert not is_loaded("Status", b"\xff")
    localai, kserve = PROTOCOLS.values()
    for result in (backend_pb2.Result(message="no model"), backend_pb2.Result()):
        assert error_inside(localai, "TTS", result.SerializeToString()) == result.message
    success = backend_pb2.Result(message="done", success=True)
    assert error_inside(localai, "TTS", success.SerializeToString()) is None
    assert error_inside(localai, "Predict", b"") is None
    assert error_inside(localai, "TTS", b"\xff") is None
    assert error_inside(None, "TTS", b"") is None
    for text in ("no model", ""):
        answer = inference_pb2.ModelStreamInferResponse(error_message=text).SerializeToString()
        assert error_inside(kserve, "ModelStreamInfer", answer) == (text or None)


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
        checked = check(capsys, port, *named)
        assert (checked.exit_code, checked.verdicts) == (0, {"Say": "typed"})
        assert set(service.called) == {"Say"}
        checked = check(capsys, port, "--service", Service.NAME, "--all")
    assert checked.exit_code == 0
    assert set(service.called) == {"DeleteAllModels", "Say", "Shutdown"}


def test_the_guard_is_not_offered_to_services_that_it_does_not_know(capsys: Capture) -> None:
    rpcs = {"Say": PLAIN}
    with backend.serve(rpcs, service=Service.NAME) as port:
        named = ("--service", Service.NAME, "--method", "Say")
        ran = run(capsys, "check", f"127.0.0.1:{port}", *named)
    assert ran.exit_code == 1
    assert "ModelGuard" not in ran.out
    assert "CONTRACT.md says what each RPC must answer" in ran.out
    assert f"check 127.0.0.1:{port} --method Say --service acme.Speech" in ran.out


def test_a_service_with_the_rpcs_of_a_protocol_is_checked_as_that(capsys: Capture) -> None:
    reflection = backend.describes("v1", Service.NAME, ("LoadModel", "Predict", "Shutdown"))
    named = ("--service", Service.NAME, "--protocol", "localai")
    with backend.serve({"Predict": PLAIN}, reflection, service=Service.NAME) as port:
        checked = check(capsys, port, *named)
        ran = run(capsys, "check", f"127.0.0.1:{port}", *named, "--method", "Predict")
    assert checked.verdicts == {"Predict": "text only"}
    assert checked.report["services"][0]["uncalled"] == ["Shutdown"]
    again = "--method Predict --protocol localai --service acme.Speech"
    assert f"check 127.0.0.1:{port} {again}\n" in ran.out


def test_rpcs_that_a_newer_protocol_has_are_not_called(capsys: Capture) -> None:
    names = ("Predict", "DeleteEverything", "LoadModel")
    reflection = backend.describes("v1", backend.SERVICE, names)
    with backend.serve({"Predict": TYPED, "DeleteEverything": TYPED}, reflection) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
        checked = check(capsys, port)
        whole = check(capsys, port, "--all")
    assert ran.exit_code == 0
    assert "Not called, because they may change something: DeleteEverything." in ran.out
    (service,) = checked.report["services"]
    assert (list(checked.verdicts), service["uncalled"]) == (["Predict"], ["DeleteEverything"])
    assert list(whole.verdicts) == ["DeleteEverything", "Predict"]


def test_names_of_rpcs_cannot_steer_the_terminal(capsys: Capture) -> None:
    """A reflection service may describe what no compiler would accept."""
    names = ("Predict", "Wi\x1b[2Jpe\n")
    file = descriptor_pb2.FileDescriptorProto(name="b.proto", package="backend")
    made = file.service.add(name="Backend")
    for name in names:
        made.method.add(name=name)

    def answer(request: bytes, _: Any) -> Iterator[bytes]:
        response = reflection_pb2.ServerReflectionResponse()
        if reflection_pb2.ServerReflectionRequest.FromString(request).HasField("list_services"):
            response.list_services_response.service.add(name=backend.SERVICE)
        else:
            described = response.file_descriptor_response.file_descriptor_proto
            described.append(file.SerializeToString())
        yield response.SerializeToString()

    reflection = backend.reflects_badly("v1", answer)
    with backend.serve(dict.fromkeys(names, PLAIN), reflection) as port:
        few = run(capsys, "check", f"127.0.0.1:{port}")
        every = run(capsys, "check", f"127.0.0.1:{port}", "--all")
    assert "may change something: Wi\\x1b[2Jpe\\n. Name" in few.out
    assert f"call 127.0.0.1:{port} 'backend.Backend/Wi\\x1b[2Jpe\\n'\n" in every.out
    assert "\x1b" not in few.out + every.out
    # It is none of those that have to answer without a model.
    assert "must answer without a model" not in every.out


@pytest.mark.parametrize("state", ["READY", "BUSY"])
def test_a_loaded_model_is_no_accusation(capsys: Capture, state: str) -> None:
    status = backend_pb2.StatusResponse(state=state).SerializeToString()
    rpcs = {"Status": lambda *_: iter([status]), "Predict": backend.answers}
    with backend.serve(rpcs) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
        named = run(capsys, "check", f"127.0.0.1:{port}", "--method", "Predict")
    assert ran.exit_code == 2
    assert "a model is loaded at" in ran.err
    assert "restart the backend or unload the model" in ran.err
    assert named.exit_code == 1
    assert "A model is loaded, as the backend says, so these answers prove nothing" in named.out
    assert "Not conforming" not in named.out


def test_the_model_goes_into_a_header_where_messages_have_no_place_for_it(
    capsys: Capture,
) -> None:
    asked = []

    def handler(request: bytes, context: Any) -> Iterator[bytes]:
        asked.append(dict(context.invocation_metadata()).get("x-model-id"))
        yield from TYPED(request, context)

    reflection = backend.describes("v1", backend.SERVICE, ["Predict"])
    with backend.serve({"Predict": handler}, reflection) as port:
        checked = check(capsys, port, "--model", "m", "--metadata", "token=secret")
    assert (checked.exit_code, set(asked)) == (0, {"m"})
    assert checked.rows[0]["again"] == (
        f"grpcerrors call 127.0.0.1:{port} backend.Backend/Predict --metadata token=... --model m"
    )


def test_a_status_that_says_otherwise_changes_nothing(capsys: Capture) -> None:
    status = backend_pb2.StatusResponse().SerializeToString()
    with backend.serve({"Status": lambda *_: iter([status]), "Predict": TYPED}) as port:
        assert check(capsys, port).exit_code == 0


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


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_finds_the_rpcs(capsys: Capture, version: str) -> None:
    rpcs = {"Predict": TYPED, "Health": backend.answers}
    with backend.serve(rpcs, backend.reflects(version, backend.SERVICE)) as port:
        checked = check(capsys, port)
    assert checked.exit_code == 0
    assert checked.report["services"][0]["source"] == "server reflection"
    assert checked.verdicts.keys() == PROTOCOLS["localai"].called
    assert checked.implemented == {"Predict": "typed"}


def test_reflection_finds_the_rpcs_of_another_service(capsys: Capture) -> None:
    service = "grpc.reflection.v1alpha.ServerReflection"
    with backend.serve({}, backend.reflects("v1alpha", service)) as port:
        checked = check(capsys, port, "--service", service, "--all")
    assert checked.exit_code == 1
    assert list(checked.verdicts) == ["ServerReflectionInfo"]


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
        checked = check(capsys, port)
    assert checked.exit_code == 0
    assert checked.report["services"][0]["source"] == "built-in list"
    assert checked.implemented == {"Predict": "typed"}
