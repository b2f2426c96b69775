# mypy: ignore-errors
"""The node as a Ray Serve deployment with model multiplexing; runs in Ray's environment."""

from __future__ import annotations

import signal
import sys

import ray
from ray import serve
from ray.serve.config import HTTPOptions, gRPCOptions

from grpcerrors_protocol import backend_pb2 as pb

SERVICER = "grpcerrors_protocol.backend_pb2_grpc.add_BackendServicer_to_server"


@serve.deployment(max_ongoing_requests=100)
class Node:
    @serve.multiplexed(max_num_models_per_replica=2)
    async def model(self, model_id: str) -> str:
        return model_id

    async def Predict(self, request: pb.PredictOptions) -> pb.Reply:  # noqa: N802
        await self.model(serve.get_multiplexed_model_id())
        return pb.Reply(message=request.Prompt.encode())


def main(grpc_port: int, http_port: int) -> None:
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", num_cpus=2)
    serve.start(
        http_options=HTTPOptions(port=http_port),
        grpc_options=gRPCOptions(port=grpc_port, grpc_servicer_functions=[SERVICER]),
    )
    serve.run(Node.bind(), name="bench", route_prefix="/")
    print(f"ray ready on 127.0.0.1:{grpc_port}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
