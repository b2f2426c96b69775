"""The backend of backend.py on asyncio.

Run it, and check it before it has a model:

    python examples/backend_aio.py 127.0.0.1:50051 &
    grpcerrors check 127.0.0.1:50051
"""

import asyncio
import sys

import grpc

from grpcerrors.aio import ModelGuard
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import backend_pb2_grpc as rpc


class Upper(rpc.BackendServicer):
    """Returns the prompt in capitals. No method handles the missing model."""

    model = None

    async def LoadModel(self, request, context):
        self.model = str.upper
        return pb.Result(success=True)

    async def Free(self, request, context):
        self.model = None
        return pb.Result(success=True)

    async def Predict(self, request, context):
        return pb.Reply(message=self.model(request.Prompt).encode())


async def main():
    server = grpc.aio.server(interceptors=[ModelGuard("upper")])
    rpc.add_BackendServicer_to_server(Upper(), server)
    server.add_insecure_port(sys.argv[1])
    await server.start()
    print("upper is ready", flush=True)
    await server.wait_for_termination()


asyncio.run(main())
