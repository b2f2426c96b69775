"""Nodes that the faults need, which no real backend is."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from grpcerrors import abort, model_not_loaded
from grpcerrors_backends.echo import Echo
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendServicer, add_BackendServicer_to_server


class Slow(Echo):
    """Echo under a name of its own, so that a router has only one node for its models."""

    name = "slow"


class Forgetful(BackendServicer):  # type: ignore[misc,unused-ignore]  # generated, without types
    """A foreign node that loses each model before it serves a request."""

    def Health(self, request: pb.HealthMessage, context: Any) -> pb.Reply:
        return pb.Reply(message=b"OK")

    def LoadModel(self, request: pb.ModelOptions, context: Any) -> pb.Result:
        return pb.Result(success=True)

    def Free(self, request: pb.HealthMessage, context: Any) -> pb.Result:
        return pb.Result(success=True)

    def Predict(self, request: pb.PredictOptions, context: Any) -> pb.Reply:
        abort(context, model_not_loaded("forgetful", model=request.ModelIdentity))
        raise AssertionError


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(4), options=(("grpc.so_reuseport", 0),))
    add_BackendServicer_to_server(Forgetful(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"forgetful ready on 127.0.0.1:{port}\n")
    sys.stdout.flush()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
