"""A router in a process of its own, for a test to kill: it holds calls open and waits."""

from __future__ import annotations

import asyncio
import sys

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import ModelSpec, NodeRegistry, SmartRouter


async def main(url: str, calls: int) -> None:
    models = {"m": ModelSpec("m", "fake")}
    async with SmartRouter(NodeRegistry(url), models) as router:
        stub = BackendStub(router.channel("m"))
        running = [stub.Predict(pb.PredictOptions()) for _ in range(calls)]
        await asyncio.gather(*running)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
