"""The token that callers of a host must send, on real hosts: a sync and an aio one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from grpcerrors import classify, is_model_not_loaded
from grpcerrors_backends.host.token_check import VARIABLE
from grpcerrors_protocol import backend_pb2 as pb

from .support.hosting import PATIENCE, READY, HostProcess, host, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

SURFACES = ["tests.backends.support.samples:Sync", "tests.backends.support.samples:Aio"]
GOOD = [("authorization", "Bearer secret-of-the-file")]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tokens") / "token"
    made.touch(0o600)
    made.write_text("secret-of-the-file\n")
    return made


@pytest.fixture(scope="module", params=SURFACES, ids=["sync", "aio"])
def locked(request: pytest.FixtureRequest, path: Path) -> Iterator[HostProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "secret-of-the-environment")
        with host(request.param, "--token-file", path) as process:
            yield process


def refusal(call: Any) -> grpc.RpcError:
    """Return the refusal of a call, or fail the test."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error = caught.value
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED, error
    verdict = classify(error)
    assert verdict.info is not None
    assert (verdict.info.domain, verdict.info.reason) == ("grpcerrors", "UNAUTHENTICATED")
    assert "--token-file" in error.details()
    assert "secret" not in f"{error!r}"
    return error


METHODS = [
    "/backend.Backend/Health",
    "/backend.Backend/Status",
    "/backend.Backend/LoadModel",
    "/backend.Backend/Free",
    "/backend.Backend/Predict",
    "/backend.Backend/PredictStream",
    "/backend.Backend/AudioTranscriptionLive",
    "/backend.Backend/NotThere",
    "/other.Service/Anything",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/inference.GRPCInferenceService/ModelReady",
]
SHAPES = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


def call_raw(process: HostProcess, path: str, shape: str, headers: Any) -> None:
    """Call a method in a shape; a stream of requests stays open."""
    body = iter([b""]) if shape.startswith("stream") else b""
    made = getattr(process.channel, shape)(path)(body, metadata=headers, timeout=PATIENCE)
    if shape.endswith("stream"):
        list(made)


def test_nothing_is_said_to_who_has_no_token(locked: HostProcess) -> None:
    for path, shape in itertools.product(METHODS, SHAPES):
        refusal(lambda path=path, shape=shape: call_raw(locked, path, shape, ()))


BAD = [
    ["Bearer wrong"],
    ["Bearer "],
    ["Bearer"],
    ["secret-of-the-file"],
    ["Basic secret-of-the-file"],
    ["bearer secret-of-the-file"],  # as LocalAI's interceptors, which compare the whole header
    ["Bearer  secret-of-the-file"],
    ["Bearer secret-of-the-file "],
    ["Bearer secret-of-the-filex"],
    ["Bearer SECRET-OF-THE-FILE"],
    ["Bearer secret-of-the-file", "Bearer wrong"],
    ["Bearer wrong", "Bearer secret-of-the-file"],
    ["Bearer " + "x" * 4000],
]


def test_a_bad_token_is_as_good_as_none(locked: HostProcess) -> None:
    for sent in BAD:
        headers = [("authorization", value) for value in sent]
        refusal(lambda headers=headers: locked.stub.Predict(pb.PredictOptions(), metadata=headers))
    assert "secret-of" not in locked.log()
    assert "refused a call without a valid token" in locked.log()


def test_a_caller_with_a_token_is_served_and_others_change_nothing(locked: HostProcess) -> None:
    predict, load = locked.stub.Predict, pb.ModelOptions(Model="m")
    with pytest.raises(grpc.RpcError) as caught:
        predict(pb.PredictOptions(), metadata=GOOD)
    assert is_model_not_loaded(caught.value), "behind the check, the guard speaks as always"
    refusal(lambda: locked.stub.LoadModel(load))
    assert locked.stub.LoadModel(load, metadata=GOOD, timeout=PATIENCE).success
    refusal(lambda: locked.stub.Free(pb.HealthMessage()))
    refusal(lambda: locked.stub.LoadModel(load))
    status = locked.stub.Status(pb.HealthMessage(), metadata=[*GOOD, ("x-model-id", "m")])
    assert status.state == READY
    assert predict(pb.PredictOptions(Prompt="hi"), metadata=GOOD).message
    environment = [("authorization", "Bearer secret-of-the-environment")]
    assert predict(pb.PredictOptions(Prompt="hi"), metadata=environment).message
    assert predict(pb.PredictOptions(Prompt="hi"), metadata=[*GOOD, *environment]).message
    list(locked.stub.PredictStream(pb.PredictOptions(Prompt="hi"), metadata=GOOD))
    assert locked.stub.Health(pb.HealthMessage(), metadata=GOOD).message == b"OK"
    assert locked.stub.Free(pb.HealthMessage(), metadata=GOOD).success


def test_the_health_service_is_open(locked: HostProcess) -> None:
    stub = health_pb2_grpc.HealthStub(locked.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service="backend.Backend"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_tokens_are_replaced_without_a_gap(locked: HostProcess, path: Path) -> None:
    def accepted(token: str) -> bool:
        headers = [("authorization", f"Bearer {token}")]
        try:
            locked.stub.Health(pb.HealthMessage(), metadata=headers)
        except grpc.RpcError:
            return False
        return True

    path.write_text("the-next-secret\nsecret-of-the-file\n")
    until(lambda: accepted("the-next-secret"))
    assert accepted("secret-of-the-file")
    path.write_text("the-next-secret\n")
    until(lambda: not accepted("secret-of-the-file"))
    assert accepted("the-next-secret")
    path.write_text("secret-of-the-file\n")
    until(lambda: accepted("secret-of-the-file"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--token-file", "--token-file none cannot be read: No such file or directory"),
        ("--router-token-file", "--router-token-file none cannot be read: No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(option: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message), host(SURFACES[0], option, "none"):
        pass
