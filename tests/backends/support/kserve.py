"""Calls of the Open Inference Protocol, with names in place of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpcerrors_protocol import inference_pb2 as v2
from grpcerrors_protocol.inference_pb2_grpc import GRPCInferenceServiceStub

from .hosting import PATIENCE

if TYPE_CHECKING:
    from .hosting import HostProcess

SURFACES = ["tests.backends.support.tensors:Sync", "tests.backends.support.tensors:Aio"]
Contents = v2.InferTensorContents


class Calls:
    """The RPCs of a host."""

    def __init__(self, process: HostProcess) -> None:
        self.stub = GRPCInferenceServiceStub(process.channel)

    def load(self, model: str, metadata: Any = (), **options: Any) -> Any:
        kinds = {str: "string_param", int: "int64_param", bool: "bool_param", bytes: "bytes_param"}
        parameters = {
            key: v2.ModelRepositoryParameter(**{kinds[type(value)]: value})
            for key, value in options.items()
        }
        request = v2.RepositoryModelLoadRequest(model_name=model, parameters=parameters)
        return self.stub.RepositoryModelLoad(request, metadata=metadata, timeout=PATIENCE)

    def unload(self, model: str, metadata: Any = ()) -> Any:
        request = v2.RepositoryModelUnloadRequest(model_name=model)
        return self.stub.RepositoryModelUnload(request, metadata=metadata, timeout=PATIENCE)

    def ready(self, model: str) -> bool:
        answer = self.stub.ModelReady(v2.ModelReadyRequest(name=model), timeout=PATIENCE)
        return bool(answer.ready)

    def server_ready(self) -> bool:
        return bool(self.stub.ServerReady(v2.ServerReadyRequest(), timeout=PATIENCE).ready)

    def index(self) -> list[tuple[str, str]]:
        answer = self.stub.RepositoryIndex(v2.RepositoryIndexRequest(), timeout=PATIENCE)
        return [(model.name, model.state) for model in answer.models]

    def metadata(self, model: str) -> Any:
        return self.stub.ModelMetadata(v2.ModelMetadataRequest(name=model), timeout=PATIENCE)

    def infer(self, model: str, *inputs: Any, metadata: Any = (), **fields: Any) -> Any:
        request = v2.ModelInferRequest(model_name=model, inputs=inputs, **fields)
        return self.stub.ModelInfer(request, metadata=metadata, timeout=PATIENCE)


def tensor(name: str, datatype: str, shape: list[int], **contents: Any) -> Any:
    made = v2.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    if contents:
        made.contents.CopyFrom(Contents(**contents))
    return made


def texts(*of: bytes) -> Any:
    return tensor("text", "BYTES", [len(of)], bytes_contents=of)


SCALE = tensor("scale", "FP32", [2], fp32_contents=[2.0, 0.5])
