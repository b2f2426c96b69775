"""The check of servers of the Open Inference Protocol (KServe v2)."""

from __future__ import annotations

import contextlib
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection, reflection_pb2

from grpcerrors import KSERVE, ModelGuard, abort, model_not_loaded
from grpcerrors.cli._probe import NO_MODEL
from grpcerrors_protocol import backend_pb2, inference_pb2, inference_pb2_grpc
from grpcerrors_protocol.pool import pool_of
from tests.grpcerrors.support import backend_server as backend
from tests.grpcerrors.support.command import check, run

if TYPE_CHECKING:
    from collections.abc import Iterator

Capture = pytest.CaptureFixture[str]
SERVICE = KSERVE.service


class Tiny(inference_pb2_grpc.GRPCInferenceServiceServicer):
    """A server of several models, which answers as its model does, and remembers what is called."""

    def __init__(self, *loaded: str) -> None:
        self.loaded = {*loaded}
        self.called: list[str] = []

    def ServerLive(self, request: Any, context: Any) -> Any:
        self.called.append("ServerLive")
        return inference_pb2.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: Any) -> Any:
        self.called.append("ServerReady")
        return inference_pb2.ServerReadyResponse(ready=True)

    def ModelReady(self, request: Any, context: Any) -> Any:
        self.called.append("ModelReady")
        return inference_pb2.ModelReadyResponse(ready=request.name in self.loaded)

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        self.called.append("ModelMetadata")
        return inference_pb2.ModelMetadataResponse(name=request.name)

    def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        self.called.append("RepositoryModelLoad")
        self.loaded.add(request.model_name)
        return inference_pb2.RepositoryModelLoadResponse(isLoaded=True)

    def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        self.called.append("RepositoryModelUnload")
        self.loaded.discard(request.model_name)
        return inference_pb2.RepositoryModelUnloadResponse(isUnloaded=True)

    def ModelInfer(self, request: Any, context: Any) -> Any:
        self.called.append(f"ModelInfer {request.model_name}")
        return inference_pb2.ModelInferResponse(model_name=request.model_name)


class Right(Tiny):
    """It refuses only what needs the model."""

    def ModelInfer(self, request: Any, context: Any) -> Any:
        if request.model_name not in self.loaded:
            abort(context, model_not_loaded("tiny", model=request.model_name))
        return super().ModelInfer(request, context)


class Bricked(Right):
    """It refuses its control plane too, as a guard does that takes all RPCs for inference."""

    def _refuse(self, request: Any, context: Any) -> Any:
        abort(context, model_not_loaded("tiny"))

    ServerLive = ServerReady = ModelReady = RepositoryModelLoad = _refuse


class Ignorant(Tiny):
    """It knows some models, and answers NOT_FOUND for the others."""

    def ModelReady(self, request: Any, context: Any) -> Any:
        if request.name != "known":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        return super().ModelReady(request, context)

    def ModelInfer(self, request: Any, context: Any) -> Any:
        if request.model_name != "known":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        abort(context, model_not_loaded("tiny", model="known"))


class Triton(Tiny):
    """Its stream has the error inside, as Triton's."""

    def ModelStreamInfer(self, requests: Any, context: Any) -> Any:
        for request in requests:
            text = f"Request for unknown model: '{request.model_name}' is not found"
            yield inference_pb2.ModelStreamInferResponse(error_message=text)


@contextlib.contextmanager
def serve(
    servicer: Tiny,
    *guards: grpc.ServerInterceptor,
    describes: bool = True,
    both: grpc.GenericRpcHandler | None = None,
) -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(8), interceptors=guards)
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    names = [SERVICE, reflection.SERVICE_NAME]
    if both:
        server.add_generic_rpc_handlers((both,))
        names.append("backend.Backend")
    if describes:
        files = (m.DESCRIPTOR for m in (inference_pb2, backend_pb2, reflection_pb2))
        reflection.enable_server_reflection(names, server, pool_of(*files))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(grace=None).wait()


def test_a_right_server_conforms_and_only_what_is_known_is_called(capsys: Capture) -> None:
    right = Right("other")
    with serve(right) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
    assert ran.exit_code == 0
    assert f"{SERVICE} at 127.0.0.1:{port}, asked for model {NO_MODEL}" in ran.out.replace(
        "\n", " "
    )
    assert "1 typed, 1 not implemented" in ran.out
    assert "ModelGuard" not in ran.out
    assert set(right.called) == {"ServerLive", "ServerReady", "ModelReady"}


def test_a_server_that_refuses_its_control_plane_does_not_conform(capsys: Capture) -> None:
    with serve(Bricked()) as port:
        checked = check(capsys, port)
        ran = run(capsys, "check", f"127.0.0.1:{port}")
        named = check(capsys, port, "--method", "RepositoryModelLoad")
    refused = dict.fromkeys(("ServerLive", "ServerReady", "ModelReady"), "wrong")
    assert checked.implemented == {"ModelInfer": "typed", **refused}
    assert (checked.exit_code, checked.report["conforming"]) == (1, False)
    call = f"  grpcerrors call 127.0.0.1:{port} {SERVICE}"
    for line in (
        "ServerLive, ServerReady, ModelReady: it must answer without a model",
        "ServerLive, ServerReady, ModelReady must answer without a model.",
        "ModelGuard(NAME, protocol=KSERVE) lets them pass",
        f"{call}/ServerLive\n",
        f"""{call}/ModelReady --data '{{"name": "{NO_MODEL}"}}'\n""",
    ):
        assert line in ran.out
    assert "makes every RPC typed" not in ran.out.replace("\n", " ")
    assert named.verdicts["RepositoryModelLoad"] == "wrong"


def test_what_the_hint_says_makes_a_careless_server_conform(capsys: Capture) -> None:
    with serve(Tiny()) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
    assert ran.exit_code == 1
    hint = "grpc.server(pool, interceptors=[ModelGuard(NAME, protocol=KSERVE)])"
    assert hint in ran.out.replace("\n", " ")
    with serve(Tiny(), ModelGuard("tiny", protocol=KSERVE)) as port:
        checked = check(capsys, port)
    assert (checked.exit_code, checked.implemented) == (0, {"ModelInfer": "typed"})
    assert checked.rows[0]["resendable"] is True


def test_the_command_of_a_finding_makes_the_same_call(capsys: Capture) -> None:
    tiny = Tiny()
    with serve(tiny) as port:
        checked = check(capsys, port)
        assert tiny.called.count(f"ModelInfer {NO_MODEL}") == 1
        again = checked.rows[0]["again"]
        assert again == (
            f"grpcerrors call 127.0.0.1:{port} {SERVICE}/ModelInfer"
            f""" --data '{{"model_name": "{NO_MODEL}"}}'"""
        )
        data = f'{{"model_name": "{NO_MODEL}"}}'
        ran = run(capsys, "call", f"127.0.0.1:{port}", f"{SERVICE}/ModelInfer", "--data", data)
    assert ran.out == f"{data}\n"
    assert tiny.called.count(f"ModelInfer {NO_MODEL}") == 2


def test_a_server_that_refuses_unknown_names_is_asked_for_a_known_one(capsys: Capture) -> None:
    with serve(Ignorant()) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
        known = check(capsys, port, "--model", "known")
    assert ran.exit_code == 1
    assert "name one that it could load and has not loaded with --model" in ran.out.replace(
        "\n", " "
    )
    assert (known.exit_code, known.implemented) == (0, {"ModelInfer": "typed"})
    assert known.report["services"][0]["model"] == "known"


def test_a_loaded_model_is_told(capsys: Capture) -> None:
    right = Right("mine")
    with serve(right) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}", "--model", "mine")
    assert ran.exit_code == 2
    assert "the model mine is loaded at 127.0.0.1" in ran.err
    assert "as ModelReady says" in ran.err
    assert not [rpc for rpc in right.called if rpc.startswith("ModelInfer")]


def test_an_error_inside_a_stream_is_shown(capsys: Capture) -> None:
    with serve(Triton()) as port:
        checked = check(capsys, port, "--method", "ModelStreamInfer")
    (row,) = checked.rows
    assert (row["verdict"], row["messages"]) == ("invisible", 1)
    assert row["message"] == f"Request for unknown model: '{NO_MODEL}' is not found"
    assert "with an error inside" in row["why"]


def test_without_reflection_the_protocol_is_named(capsys: Capture) -> None:
    with serve(Right(), describes=False) as port:
        unnamed = run(capsys, "check", f"127.0.0.1:{port}")
        checked = check(capsys, port, "--protocol", "kserve", "--model", "m")
    assert unnamed.exit_code == 1
    assert "Are --protocol and --service right?" in unnamed.out
    assert (checked.exit_code, checked.implemented) == (0, {"ModelInfer": "typed"})
    assert checked.report["services"][0]["source"] == "built-in list"
    assert checked.rows[0]["again"].endswith(" --method ModelInfer --protocol kserve --model m")


def test_a_protocol_that_is_not_offered_is_told(capsys: Capture) -> None:
    with serve(Right()) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}", "--protocol", "localai")
    assert ran.exit_code == 2
    assert "does not offer backend.Backend; its reflection lists grpc." in ran.err


def test_both_protocols_of_a_server_are_checked(capsys: Capture) -> None:
    with serve(Right(), both=backend.serves({})) as port:
        checked = check(capsys, port)
        kserve = check(capsys, port, "--protocol", "kserve")
    services = [(each["service"], each["protocol"]) for each in checked.report["services"]]
    assert services == [("backend.Backend", "localai"), (SERVICE, "kserve")]
    assert (checked.exit_code, checked.implemented) == (0, {"ModelInfer": "typed"})
    assert [each["service"] for each in kserve.report["services"]] == [SERVICE]


def test_one_protocol_that_does_not_conform_is_enough(capsys: Capture) -> None:
    localai = backend.serves({"Predict": backend.fails(model_not_loaded("x"))})
    with serve(Tiny(), both=localai) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
    assert ran.exit_code == 1
    assert "  1 typed, 33 not implemented" in ran.out
    assert "  1 invisible, 1 not implemented" in ran.out
    assert ran.out.count("Not conforming") == 1
