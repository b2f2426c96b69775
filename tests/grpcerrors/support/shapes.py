"""A real service with an RPC of each shape, described by reflection and by .proto files."""

from __future__ import annotations

import contextlib
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection, reflection_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SERVICE = "shapes.Shapes"
NOTE = """syntax = "proto3";
package shapes;
message Note { string text = 1; int64 count = 2; bytes data = 3; }
"""
SHAPES = """syntax = "proto3";
package shapes;
import "note.proto";
service Shapes {
  rpc One(Note) returns (Note);
  rpc Many(Note) returns (stream Note);
  rpc Join(stream Note) returns (Note);
  rpc Chat(stream Note) returns (stream Note);
}
"""


def files() -> list[descriptor_pb2.FileDescriptorProto]:
    """The same as the two texts."""
    field = descriptor_pb2.FieldDescriptorProto
    note = descriptor_pb2.FileDescriptorProto(name="note.proto", package="shapes", syntax="proto3")
    message = note.message_type.add(name="Note")
    kinds = {"text": field.TYPE_STRING, "count": field.TYPE_INT64, "data": field.TYPE_BYTES}
    for number, (name, kind) in enumerate(kinds.items(), 1):
        message.field.add(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL)
    shapes = descriptor_pb2.FileDescriptorProto(
        name="shapes.proto", package="shapes", syntax="proto3", dependency=["note.proto"]
    )
    service = shapes.service.add(name="Shapes")
    for name, takes_many, gives_many in (
        ("One", False, False),
        ("Many", False, True),
        ("Join", True, False),
        ("Chat", True, True),
    ):
        service.method.add(
            name=name,
            input_type=".shapes.Note",
            output_type=".shapes.Note",
            client_streaming=takes_many,
            server_streaming=gives_many,
        )
    return [note, shapes]


_POOL = descriptor_pool.DescriptorPool()
for _file in files():
    _POOL.AddSerializedFile(_file.SerializeToString())
Note: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("shapes.Note"))


class Shapes:
    """The servicer. `seen` is the metadata of each call.

    A text that is the name of a status code fails the call.
    """

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def _meet(self, context: Any, text: str = "") -> None:
        if text in grpc.StatusCode.__members__:
            context.set_trailing_metadata((("why", "asked"), ("raw-bin", b"\x00\xff")))
            context.abort(grpc.StatusCode[text], "as asked")
        self.seen.append(dict(context.invocation_metadata()))

    def One(self, request: Any, context: Any) -> Any:
        if request.text == "hang":
            gone = futures.Future[None]()
            context.add_callback(lambda: gone.set_result(None))
            gone.result()
        self._meet(context, request.text)
        return Note(text=request.text.upper(), count=request.count, data=request.data)

    def Many(self, request: Any, context: Any) -> Iterator[Any]:
        yield from (Note(count=number) for number in range(1, request.count + 1))
        self._meet(context, request.text)

    def Join(self, requests: Iterator[Any], context: Any) -> Any:
        texts = [request.text for request in requests]
        self._meet(context, texts[0] if texts else "")
        return Note(text="+".join(texts).upper())

    def Chat(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            self._meet(context, request.text)
            yield Note(text=request.text.upper())

    def handler(self) -> grpc.GenericRpcHandler:
        coders = (Note.FromString, Note.SerializeToString)
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "One": grpc.unary_unary_rpc_method_handler(self.One, *coders),
                "Many": grpc.unary_stream_rpc_method_handler(self.Many, *coders),
                "Join": grpc.stream_unary_rpc_method_handler(self.Join, *coders),
                "Chat": grpc.stream_stream_rpc_method_handler(self.Chat, *coders),
            },
        )


def described() -> Callable[[Any, Any], Iterator[Any]]:
    """Return what answers reflection requests as grpcio does: with all imports at once."""
    servicer: Any = reflection.ReflectionServicer([SERVICE], _POOL)
    return servicer.ServerReflectionInfo  # type: ignore[no-any-return]


def described_file_by_file(
    known: Sequence[descriptor_pb2.FileDescriptorProto],
) -> Callable[[Any, Any], Iterator[Any]]:
    """Return what answers reflection requests with one file each, as some servers do."""

    def answer(requests: Iterator[Any], _: Any) -> Iterator[Any]:
        for request in requests:
            response = reflection_pb2.ServerReflectionResponse()
            if request.HasField("list_services"):
                response.list_services_response.service.add(name=SERVICE)
            wanted = request.file_by_filename or "shapes.proto"
            found = [file.SerializeToString() for file in known if file.name == wanted]
            response.file_descriptor_response.file_descriptor_proto.extend(found)
            yield response

    return answer


def reflects(answer: Callable[[Any, Any], Iterator[Any]]) -> grpc.GenericRpcHandler:
    """Server reflection v1 that answers as it is told."""
    handler = grpc.stream_stream_rpc_method_handler(
        answer,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    name = "grpc.reflection.v1.ServerReflection"
    return grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})


@contextlib.contextmanager
def serve(
    *handlers: grpc.GenericRpcHandler, credentials: grpc.ServerCredentials | None = None
) -> Iterator[int]:
    """Serve on a loopback port; yields the port."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers(handlers)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(grace=None).wait()
