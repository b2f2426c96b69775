"""A client with KServe's Python package: prints what it got from the server, as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import grpc
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceGRPCClient
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from grpcerrors import classify


async def main() -> None:
    logging.disable()
    server = InferenceGRPCClient(sys.argv[1])

    async def infer(data: list[Any], datatype: str = "BYTES") -> Any:
        inputs = [InferInput("text", [len(data)], datatype, data=data)]
        return await server.infer(InferRequest("m", inputs))

    async def failure(call: Any) -> list[Any]:
        try:
            await call
        except grpc.RpcError as error:
            verdict = classify(error)
            reason = verdict.condition.reason if verdict.condition else None
            evidence = verdict.evidence and verdict.evidence.value
            return [str(error.code()), error.details(), reason, evidence]
        return []

    async with grpc.aio.insecure_channel(sys.argv[1]) as channel:
        stub = GRPCInferenceServiceStub(channel)
        said: dict[str, Any] = {"live": await server.is_server_live()}
        said["missing"] = await failure(infer(["a"]))
        loaded = await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="m"))
        said["ready"] = loaded.isLoaded and await server.is_model_ready("m")
        metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="m"))
        said["inputs"] = [each.name for each in metadata.inputs]
        answer = (await infer(["a", "ö"])).outputs[0].data
        said["answer"] = [each.decode() for each in answer]
        said["bad"] = await failure(infer([1.0], "FP32"))
        await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="m"))
        said["gone"] = await failure(infer(["a"]))
    await server.close()
    sys.stdout.write(json.dumps(said))


asyncio.run(main())
