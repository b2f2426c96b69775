# ruff: noqa: N802 - methods are named as their RPCs
"""A node that does no work: the cheapest call that a real gRPC server can answer."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendServicer, add_BackendServicer_to_server


class Node(BackendServicer):
    async def Health(self, _request: pb.HealthMessage, _context: Any) -> pb.Reply:
        return pb.Reply(message=b"OK")

    async def LoadModel(self, _request: pb.ModelOptions, _context: Any) -> pb.Result:
        return pb.Result(success=True)

    async def Status(self, _request: pb.HealthMessage, _context: Any) -> pb.StatusResponse:
        return pb.StatusResponse(state=pb.StatusResponse.READY)

    async def Predict(self, request: pb.PredictOptions, _context: Any) -> pb.Reply:
        return pb.Reply(message=request.Prompt.encode())


async def main() -> None:
    server = grpc.aio.server()
    add_BackendServicer_to_server(Node(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"node ready on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
