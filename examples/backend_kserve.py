"""A server of the Open Inference Protocol (KServe v2) whose guard reports a missing model.

Run it, and check it before it has a model:

    python examples/backend_kserve.py 127.0.0.1:50051 &
    grpcerrors check 127.0.0.1:50051 --protocol kserve
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from grpcerrors import KSERVE, ModelGuard
from grpcerrors_protocol import inference_pb2 as pb
from grpcerrors_protocol import inference_pb2_grpc as rpc


class Lengths(rpc.GRPCInferenceServiceServicer):
    """Returns the length of each text. `ModelInfer` does not handle the missing model."""

    def __init__(self):
        self.models = {}

    def RepositoryModelLoad(self, request, context):
        self.models[request.model_name] = len
        return pb.RepositoryModelLoadResponse()

    def RepositoryModelUnload(self, request, context):
        self.models.pop(request.model_name, None)
        return pb.RepositoryModelUnloadResponse()

    def ModelReady(self, request, context):
        return pb.ModelReadyResponse(ready=request.name in self.models)

    def ModelInfer(self, request, context):
        model = self.models[request.model_name]
        texts = request.inputs[0].contents.bytes_contents
        response = pb.ModelInferResponse(model_name=request.model_name)
        output = response.outputs.add(name="length", datatype="INT64", shape=[len(texts)])
        output.contents.int64_contents.extend(map(model, texts))
        return response


guard = ModelGuard("lengths", protocol=KSERVE)
server = grpc.server(ThreadPoolExecutor(8), interceptors=[guard])
rpc.add_GRPCInferenceServiceServicer_to_server(Lengths(), server)
server.add_insecure_port(sys.argv[1])
server.start()
print("lengths is ready", flush=True)
server.wait_for_termination()
