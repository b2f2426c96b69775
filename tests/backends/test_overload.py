"""More concurrent calls than a host can run: they wait, or are refused with a reason."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from grpcerrors_backends.host import server
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub

from .support.hosting import PATIENCE, host

SURFACES = ["tests.backends.support.samples:Sync", "tests.backends.support.samples:Aio"]


async def burst(address: str, calls: int) -> Counter[str]:
    """Send concurrent *calls* over a few channels; return the status code of each."""
    channels = [
        grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(8)
    ]
    stubs = [BackendStub(channel) for channel in channels]

    async def call(number: int) -> str:
        try:
            await stubs[number % len(stubs)].Predict(pb.PredictOptions(Prompt="x"), timeout=120)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        return "OK"

    answers = Counter(await asyncio.gather(*map(call, range(calls))))
    for channel in channels:
        await channel.close()
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("name", SURFACES)
def test_2000_calls_at_once_are_all_answered(name: str) -> None:
    with host(name) as process:
        process.load("m", "answer_seconds:0.2")
        assert asyncio.run(burst(process.address, 2000)) == {"OK": 2000}


@pytest.mark.slow
@pytest.mark.parametrize("name", SURFACES)
def test_health_answers_while_every_thread_is_taken(name: str) -> None:
    with host(name) as process:
        process.load("m", "answer_seconds:0.01")
        request = pb.PredictOptions(Prompt="endless")
        streams = [process.stub.PredictStream(request) for _ in range(server.THREADS + 8)]
        for stream in streams[: server.THREADS // 2]:
            next(stream)
        assert process.stub.Health(pb.HealthMessage(), timeout=PATIENCE).message == b"OK"
        assert process.status("m").state == pb.StatusResponse.BUSY
        health = health_pb2_grpc.HealthStub(process.channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        for stream in streams:
            stream.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("name", SURFACES)
def test_calls_above_the_limit_are_refused_with_a_reason(name: str) -> None:
    with host(name, "--max-calls", 4) as process:
        process.load("m", "answer_seconds:0.01")
        request = pb.PredictOptions(Prompt="endless")
        streams = [process.stub.PredictStream(request) for _ in range(4)]
        for stream in streams:
            next(stream)
        answers = asyncio.run(burst(process.address, 4))
        assert answers == {"RESOURCE_EXHAUSTED: Concurrent RPC limit exceeded!": 4}
        for stream in streams:
            stream.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("name", SURFACES)
def test_requests_above_the_limit_of_bytes_are_refused_with_a_reason(name: str) -> None:
    with host(name, "--max-buffered", 1) as process:
        process.load("m", "answer_seconds:0.01")
        # The prompt is sent back again and again.
        large = pb.PredictOptions(Prompt="endless", Grammar="x" * 700_000)
        stream = process.stub.PredictStream(large)
        next(stream)
        with pytest.raises(grpc.RpcError) as caught:
            process.stub.Predict(large, timeout=PATIENCE)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers = dict(caught.value.trailing_metadata())
        assert trailers["grpcerrors-unexecuted"] == "OVERLOADED"
        process.stub.Predict(pb.PredictOptions(Prompt="x"), timeout=PATIENCE)
        stream.cancel()
