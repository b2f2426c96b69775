"""The gateway: which model a request is for, and which calls the gateway answers itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from grpcerrors import classify
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import NodeRegistry
from grpcerrors_router.entities import Load
from grpcerrors_router.gateway.server import GatewayServer
from grpcerrors_router.registry.jobs import JobRequest
from tests.router.conftest import HANG
from tests.router.support.rawnode import Script, Stack, stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(tmp_path) as made:
        made.node.script = Script(replies=(pb.Reply(message=b"hi").SerializeToString(),))
        yield made


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def reason(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(
        _Call(error.code(), error.details() or "", tuple(error.trailing_metadata()))
    )
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.domain == "grpcerrors"
    return info.reason


class _Call:
    """Adapts an aio error to grpc_status, which expects the methods of a sync call."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: Any) -> None:
        self.code = lambda: code
        self.details = lambda: details
        self.trailing_metadata = lambda: trailing


async def test_the_metadata_key_decides(served: Stack) -> None:
    stub = BackendStub(served.through)
    request = pb.PredictOptions(Prompt="x")
    reply = await stub.Predict(request, metadata=(("x-model-id", "m"),))
    assert reply.message == b"hi"
    assert served.node.loads == ["m"]
    assert ("x-model-id", "m") in served.node.seen[0].metadata


async def test_without_it_the_identity_in_the_request_decides(served: Stack) -> None:
    stub = BackendStub(served.through)
    assert (await stub.Predict(pb.PredictOptions(ModelIdentity="m"))).message == b"hi"
    assert (await stub.TTS(pb.TTSRequest(ModelIdentity="m"))) is not None
    streamed = stub.PredictStream(pb.PredictOptions(ModelIdentity="m"))
    assert [reply.message async for reply in streamed] == [b"hi"]
    assert served.node.loads == ["m"]
    assert all(("x-model-id", "m") in seen.metadata for seen in served.node.seen)
    sent = [pb.PredictOptions.FromString(seen.requests[0]) for seen in served.node.seen[::2]]
    assert [request.ModelIdentity for request in sent] == ["m", "m"]


async def test_the_identity_is_the_model_that_the_catalogue_loads(served: Stack) -> None:
    stub = BackendStub(served.through)
    await stub.Predict(pb.PredictOptions(ModelIdentity="weights.gguf"))
    assert served.node.loads == ["weights.gguf"]
    assert ("x-model-id", "alias") in served.node.seen[0].metadata


@pytest.mark.parametrize("cold", ["", "m"])
async def test_model_metadata_names_its_model_in_the_options(served: Stack, cold: str) -> None:
    stub = BackendStub(served.through)
    if cold:
        assert await stub.ModelMetadata(pb.ModelOptions(Model="m")) is not None
        assert served.node.loads == ["m"]
    else:
        error = await refused(stub.ModelMetadata(pb.ModelOptions()))
        assert "set Model or the metadata key x-model-id" in (error.details() or "")


@pytest.mark.parametrize(
    ("method", "metadata", "request_bytes", "words"),
    [
        ("/other.Service/Call", (), b"", "which model is /other.Service/Call for?"),
        ("/backend.Backend/AudioTranscriptionLive", (), b"", "set the metadata key x-model-id"),
        ("/backend.Backend/AudioEncode", (), b"", "set the metadata key x-model-id"),
        ("/backend.Backend/Predict", (), b"", "set ModelIdentity or the metadata key x-model-id"),
        ("/backend.Backend/Predict", (), b"\xff", "is not a backend.PredictOptions"),
        (
            "/backend.Backend/Predict",
            (("x-model-id", "m"), ("x-model-id", "alias")),
            b"",
            "x-model-id names 2 models; send it once",
        ),
        (
            "/backend.Backend/Predict",
            (),
            pb.PredictOptions(ModelIdentity="twin").SerializeToString(),
            '"twin-a" and "twin-b" are both loaded as "twin"; set x-model-id to one',
        ),
        (
            "/backend.Backend/Predict",
            (),
            pb.PredictOptions(ModelIdentity="alias").SerializeToString(),
            '"alias" is loaded as another Model',
        ),
    ],
)
async def test_a_request_without_a_model_gets_a_hint(
    served: Stack, method: str, metadata: Any, request_bytes: bytes, words: str
) -> None:
    call = served.through.stream_unary(method)(iter([request_bytes]), metadata=metadata)
    error = await refused(call)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in (error.details() or "")
    assert reason(error) == "NO_MODEL_KEY"
    assert not served.node.seen
    assert not served.node.loads


@pytest.mark.parametrize(
    ("key", "identity", "fits"),
    [
        ("m", "m", True),
        ("m", "", True),
        ("m", "zzz", False),
        ("m", "weights.gguf", False),
        ("alias", "weights.gguf", True),
        ("alias", "alias", False),
        ("twin-b", "twin", True),
    ],
)
async def test_a_callers_mistake_costs_no_replica(
    served: Stack, key: str, identity: str, fits: bool
) -> None:
    stub = BackendStub(served.through)
    call = stub.Predict(pb.PredictOptions(ModelIdentity=identity), metadata=(("x-model-id", key),))
    if fits:
        assert (await call).message == b"hi"
    else:
        error = await refused(call)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert f'x-model-id is "{key}", but ModelIdentity is "{identity}"' in str(error.details())
        assert not served.node.seen


async def test_an_unknown_model_is_not_found_and_names_the_closest(served: Stack) -> None:
    stub = BackendStub(served.through)
    error = await refused(stub.Predict(pb.PredictOptions(ModelIdentity="orphen")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert 'did you mean "orphan"?' in (error.details() or "")
    assert reason(error) == "UNKNOWN_MODEL"


async def test_no_node_is_unavailable_with_a_time_to_retry(served: Stack) -> None:
    error = await refused(
        BackendStub(served.through).Predict(pb.PredictOptions(ModelIdentity="orphan"))
    )
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert reason(error) == "NO_CAPACITY"
    status = rpc_status.from_call(
        _Call(error.code(), error.details() or "", tuple(error.trailing_metadata()))
    )
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToTimedelta().total_seconds() > 0


async def test_a_load_continues_after_the_callers_deadline(served: Stack) -> None:
    served.node.load_gate = asyncio.Event()
    stub = BackendStub(served.through)
    error = await refused(stub.Predict(pb.PredictOptions(ModelIdentity="m"), timeout=0.3))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    served.node.load_gate.set()
    assert (await stub.Predict(pb.PredictOptions(ModelIdentity="m"))).message == b"hi"
    assert served.node.loads == ["m"]


async def test_a_load_that_fails_says_why_in_the_words_of_the_node(served: Stack) -> None:
    served.node.load_error = "weights are corrupt"
    error = await refused(BackendStub(served.through).Predict(pb.PredictOptions(ModelIdentity="m")))
    assert error.code() in {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE}
    assert "weights are corrupt" in (error.details() or "")
    assert classify(error).condition is None  # it is no evidence against a replica


@pytest.mark.parametrize("metadata", [(), (("x-model-id", "m"),)])
@pytest.mark.parametrize("method", ["LoadModel", "Free"])
async def test_loading_and_unloading_are_not_passed_on(
    served: Stack, method: str, metadata: Any
) -> None:
    call = served.through.unary_unary(f"/backend.Backend/{method}")
    error = await refused(call(b"", metadata=metadata))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "grpcerrors-router load|unload" in (error.details() or "")
    assert reason(error) == "NOT_ROUTED"
    assert classify(error).condition is None
    assert not served.node.loads


async def test_health_is_the_gateways_own(served: Stack) -> None:
    stub = BackendStub(served.through)
    assert (await stub.Health(pb.HealthMessage())).message == b"OK"
    assert not served.node.loads


async def test_status_reports_what_is_loaded_and_loads_nothing(served: Stack) -> None:
    stub = BackendStub(served.through)
    key = (("x-model-id", "m"),)
    status = pb.StatusResponse
    assert (await stub.Status(pb.HealthMessage(), metadata=key)).state == status.UNINITIALIZED
    assert not served.node.loads
    served.node.load_gate = asyncio.Event()
    work = asyncio.ensure_future(stub.Predict(pb.PredictOptions(ModelIdentity="m")))
    while not served.node.loads:
        await asyncio.sleep(0.01)
    assert (await stub.Status(pb.HealthMessage(), metadata=key)).state == status.BUSY
    served.node.load_gate.set()
    await work
    assert (await stub.Status(pb.HealthMessage(), metadata=key)).state == status.READY
    error = await refused(stub.Status(pb.HealthMessage(), metadata=(("x-model-id", "n"),)))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    error = await refused(stub.Status(pb.HealthMessage()))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_every_service_is_healthy_until_the_gateway_stops(served: Stack) -> None:
    stub = health_pb2_grpc.HealthStub(served.through)
    serving, stopping = (
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    )
    for service in ("", "backend.Backend", "fleet.v1.Fleet", "fleet.v1.Operator"):
        reply = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert reply.status == serving
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="nothing"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    gate = asyncio.Event()

    async def wait(requests: Any, context: Any) -> None:
        async for _ in requests:
            pass
        await gate.wait()
        await context.write(b"")

    served.node.behave = wait
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="backend.Backend"))
    assert (await watch.read()).status == serving
    work = asyncio.ensure_future(
        BackendStub(served.through).Predict(pb.PredictOptions(ModelIdentity="m"))
    )
    while not served.node.seen:
        await asyncio.sleep(0.01)
    stop = asyncio.ensure_future(served.server.stop(grace=30))
    assert (await watch.read()).status == stopping
    watch.cancel()
    gate.set()
    assert await work == pb.Reply()  # what was in flight ends well
    await stop


async def test_a_load_whose_owner_died_does_not_count_as_busy(served: Stack) -> None:
    other = NodeRegistry(served.url, router="dead", timeout=HANG)
    job = await other.claim_load(JobRequest("raw-1", "m", "dead", 1, 0.2))
    await other.close()
    await served.router.watcher.catch_up()
    assert isinstance(job, Load)
    assert served.router.table.nodes["raw-1"].loads["m"].generation == job.generation
    stub = BackendStub(served.through)

    async def state() -> Any:
        return (await stub.Status(pb.HealthMessage(), metadata=(("x-model-id", "m"),))).state

    async with asyncio.timeout(60):
        while await state() != pb.StatusResponse.UNINITIALIZED:
            await asyncio.sleep(0.02)
    assert "m" in served.router.table.nodes["raw-1"].loads, "nobody has deleted the job yet"


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
async def test_reflection_describes_every_service(served: Stack, version: str) -> None:
    method = served.through.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )

    async def ask(**request: str) -> Any:
        return await method(iter([reflection_pb2.ServerReflectionRequest(**request)])).read()

    listed = await ask(list_services="")
    names = {service.name for service in listed.list_services_response.service}
    assert names >= {
        "backend.Backend",
        "fleet.v1.Fleet",
        "fleet.v1.Operator",
        "grpc.health.v1.Health",
    }
    for symbol in ("backend.Backend", "fleet.v1.Fleet", "grpc.health.v1.Health"):
        found = await ask(file_containing_symbol=symbol)
        assert found.file_descriptor_response.file_descriptor_proto


async def test_a_port_that_is_taken_is_reported(served: Stack) -> None:
    second = GatewayServer(served.router, served.address)
    with pytest.raises(OSError, match="the port is taken"):
        await second.start()
