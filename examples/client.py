"""A client of several replicas that needs no proxy: it retries what was provably not executed.

Run it with one or more backends, which need not have a model:

    python examples/client.py 127.0.0.1:50051 127.0.0.1:50052
"""

import sys
import time

import grpc

from grpcerrors import classify, explain, is_model_loading, is_model_not_loaded
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import backend_pb2_grpc as rpc

ATTEMPTS = 10


def predict(replicas, request):
    """Return the answer of the first replica that has the model; load it if none has."""
    for attempt in range(ATTEMPTS):
        address, stub = replicas[attempt % len(replicas)]
        try:
            return stub.Predict(request, timeout=30)
        except grpc.RpcError as error:
            verdict = classify(error)
            if not verdict.unexecuted:
                raise  # it may have been executed, so sending it again is not safe
            print(f"{address}: {explain(error).splitlines()[0]}")
            if attempt < len(replicas) - 1:
                continue  # ask the other replicas first
            if is_model_loading(error):
                time.sleep(verdict.retry_after or 1)
            elif is_model_not_loaded(error):
                stub.LoadModel(pb.ModelOptions(Model="example"), timeout=600)
                replicas = [(address, stub)]
            else:
                raise
    raise TimeoutError(f"no replica had the model in {ATTEMPTS} attempts")


replicas = [(address, rpc.BackendStub(grpc.insecure_channel(address))) for address in sys.argv[1:]]
print(predict(replicas, pb.PredictOptions(Prompt="hello")).message.decode())
