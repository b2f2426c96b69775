"""The load generator: an asyncio client, the same for every target."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import grpc

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub

if TYPE_CHECKING:
    from bench.router.peers import Target

REQUEST = pb.PredictOptions(Prompt="hello", ModelIdentity="m")


async def warm_up(target: Target, patience: float = 60.0) -> None:
    """Wait until the target answers. Raises AioRpcError if it does not answer in time."""
    async with grpc.aio.insecure_channel(target.address) as channel:
        predict = BackendStub(channel).Predict
        end = time.monotonic() + patience
        while True:
            try:
                await predict(REQUEST, metadata=target.metadata, timeout=10)
            except grpc.aio.AioRpcError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.2)
            else:
                return


async def throughput(target: Target, seconds: float, concurrency: int) -> float:
    """Return the calls per second at this concurrency."""
    calls = 0
    async with grpc.aio.insecure_channel(target.address) as channel:
        predict = BackendStub(channel).Predict
        await predict(REQUEST, metadata=target.metadata)
        start = time.perf_counter()
        end = start + seconds

        async def worker() -> None:
            nonlocal calls
            while time.perf_counter() < end:
                await predict(REQUEST, metadata=target.metadata, timeout=30)
                calls += 1

        await asyncio.gather(*(worker() for _ in range(concurrency)))
        return calls / (time.perf_counter() - start)
