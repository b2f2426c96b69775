"""Our protocols and the generated code of others can be imported together, in either order."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from grpcerrors_protocol import backend_pb2, fleet_pb2, inference_pb2
from grpcerrors_protocol.pool import POOL, pool_of

OURS = "from grpcerrors_protocol import backend_pb2 as ours, backend_pb2_grpc, fleet_pb2"
# As protoc's output for LocalAI's backend.proto: the same names, another file, other fields.
THEIRS = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
file = descriptor_pb2.FileDescriptorProto(name="backend.proto", package="backend", syntax="proto3")
for message, fields in {
    "HealthMessage": {},
    "Result": {"message": (1, 9), "success": (2, 8)},
    "Reply": {"message": (1, 12), "newer": (77, 9)},
    "PredictOptions": {"Prompt": (1, 9), "ModelIdentity": (54, 9), "Newer": (99, 9)},
}.items():
    described = file.message_type.add(name=message)
    for name, (number, kind) in fields.items():
        described.field.add(name=name, number=number, type=kind, label=1)
file.enum_type.add(name="EmbeddingLayout").value.add(name="ONLY_ONE", number=0)
service = file.service.add(name="Backend")
rpc = service.method.add(name="Predict")
rpc.input_type, rpc.output_type = ".backend.PredictOptions", ".backend.Reply"
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
theirs = message_factory.GetMessages([file])
"""
TALK = """
from concurrent.futures import ThreadPoolExecutor
import grpc
Options, Reply = theirs["backend.PredictOptions"], theirs["backend.Reply"]

class Servicer(backend_pb2_grpc.BackendServicer):
    def Predict(self, request, context):
        return ours.Reply(message=request.Prompt.encode() + b" by ours")

def predict(request, context):
    return Reply(message=request.Prompt.encode() + b" by theirs")

def serve(add):
    server = grpc.server(ThreadPoolExecutor(2))
    add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, grpc.insecure_channel(f"127.0.0.1:{port}")

handler = grpc.unary_unary_rpc_method_handler(predict, Options.FromString, Reply.SerializeToString)
theirs_server, to_theirs = serve(lambda server: server.add_generic_rpc_handlers(
    [grpc.method_handlers_generic_handler("backend.Backend", {"Predict": handler})]))
ours_server, to_ours = serve(
    lambda server: backend_pb2_grpc.add_BackendServicer_to_server(Servicer(), server))

stub = backend_pb2_grpc.BackendStub(to_theirs)
print(stub.Predict(ours.PredictOptions(Prompt="a"), timeout=60).message)
call = to_ours.unary_unary("/backend.Backend/Predict", Options.SerializeToString, Reply.FromString)
print(call(Options(Prompt="b"), timeout=60).message)
theirs_server.stop(None).wait()
ours_server.stop(None).wait()
"""


# As Triton's and KServe's generated code: the same names as in our inference.proto.
THEIR_KSERVE = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
file = descriptor_pb2.FileDescriptorProto(name="grpc_service.proto", package="inference")
file.message_type.add(name="ServerLiveRequest")
file.message_type.add(name="ServerLiveResponse").field.add(name="live", number=1, type=8, label=1)
rpc = file.service.add(name="GRPCInferenceService").method.add(name="ServerLive")
rpc.input_type, rpc.output_type = ".inference.ServerLiveRequest", ".inference.ServerLiveResponse"
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
theirs = message_factory.GetMessages([file])["inference.ServerLiveResponse"](live=True)
"""
OUR_KSERVE = "from grpcerrors_protocol import inference_pb2 as ours, inference_pb2_grpc"
ANSWER = "print(ours.ServerLiveResponse.FromString(theirs.SerializeToString()).live)"


@pytest.mark.parametrize(
    ("order", "printed"),
    [
        ((THEIRS, OURS, TALK), ["b'a by theirs'", "b'b by ours'"]),
        ((OURS, THEIRS, TALK), ["b'a by theirs'", "b'b by ours'"]),
        ((THEIR_KSERVE, OUR_KSERVE, ANSWER), ["True"]),
        ((OUR_KSERVE, THEIR_KSERVE, ANSWER), ["True"]),
    ],
    ids=["theirs", "ours", "their kserve", "our kserve"],
)
def test_both_can_be_imported_and_talk(order: tuple[str, ...], printed: list[str]) -> None:
    code = textwrap.dedent("\n".join(order))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.splitlines() == printed, done.stderr


def test_the_default_pool_is_left_alone() -> None:
    for own in (backend_pb2, fleet_pb2, inference_pb2):
        with pytest.raises(KeyError):
            descriptor_pool.Default().FindFileByName(own.DESCRIPTOR.name)
    assert POOL.FindMessageTypeByName("backend.Reply") is backend_pb2.Reply.DESCRIPTOR


def test_a_pool_of_several_files() -> None:
    pool = pool_of(backend_pb2.DESCRIPTOR, fleet_pb2.DESCRIPTOR)
    assert pool.FindFileContainingSymbol("fleet.v1.Fleet").name.endswith("fleet.proto")
    assert "EmbeddingLayout" in pool.FindFileByName(backend_pb2.DESCRIPTOR.name).enum_types_by_name
    other = FileDescriptorProto(name="other.proto", package="backend")
    other.message_type.add(name="Reply")
    with pytest.raises(TypeError, match=r"backend\.Reply"):
        pool.AddSerializedFile(other.SerializeToString())
