"""A backend whose one interceptor reports a missing model.

Run it, and check it before it has a model:

    python examples/backend.py 127.0.0.1:50051 &
    grpcerrors check 127.0.0.1:50051
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from grpcerrors import ModelGuard
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import backend_pb2_grpc as rpc


class Upper(rpc.BackendServicer):
    """Returns the prompt in capitals. No method handles the missing model."""

    model = None

    def LoadModel(self, request, context):
        self.model = str.upper
        return pb.Result(success=True)

    def Free(self, request, context):
        self.model = None
        return pb.Result(success=True)

    def Predict(self, request, context):
        return pb.Reply(message=self.model(request.Prompt).encode())


server = grpc.server(ThreadPoolExecutor(8), interceptors=[ModelGuard("upper")])
rpc.add_BackendServicer_to_server(Upper(), server)
server.add_insecure_port(sys.argv[1])
server.start()
print("upper is ready", flush=True)
server.wait_for_termination()
