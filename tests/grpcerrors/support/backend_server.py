"""A real server that offers RPCs of the backend protocol, each answering as it is told."""

from __future__ import annotations

import contextlib
import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2

from grpcerrors_protocol import backend_pb2
from grpcerrors_protocol.pool import pool_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from grpcerrors import ContractError

    Handler = Callable[[bytes, Any], Iterator[bytes]]

SERVICE = "backend.Backend"


def fails(error: ContractError) -> Handler:
    """A handler that answers with an error of the contract."""

    def handler(_: bytes, context: Any) -> Iterator[bytes]:
        context.abort_with_status(error)
        yield b""

    return handler


def aborts(code: grpc.StatusCode, text: str, *, after: int = 0) -> Handler:
    """A handler that sends some messages and aborts."""

    def handler(_: bytes, context: Any) -> Iterator[bytes]:
        for _message in range(after):
            yield b""
        context.abort(code, text)

    return handler


def answers(request: bytes, _: Any) -> Iterator[bytes]:
    """Succeed with the request."""
    yield request


def never_ends(_: bytes, context: Any) -> Iterator[bytes]:
    """Stream for as long as somebody listens."""
    while context.is_active():
        yield b"x"


def hangs(_: bytes, context: Any) -> Iterator[bytes]:
    """Answer nothing until the client gives up."""
    gone = threading.Event()
    context.add_callback(gone.set)
    gone.wait()
    yield b""


def speaks_once(request: bytes, context: Any) -> Iterator[bytes]:
    """Stream one message, and then answer nothing until the client gives up."""
    yield b"x"
    yield from hangs(request, context)


def serves(rpcs: Mapping[str, Handler], service: str = SERVICE) -> grpc.GenericRpcHandler:
    """The RPCs of one service."""
    handlers = {name: grpc.unary_stream_rpc_method_handler(rpc) for name, rpc in rpcs.items()}
    return grpc.method_handlers_generic_handler(service, handlers)


@contextlib.contextmanager
def serve(
    rpcs: Mapping[str, Handler],
    *more: grpc.GenericRpcHandler,
    service: str = SERVICE,
    port: int = 0,
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[int]:
    """Serve the RPCs on a loopback port; yields the port."""
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((serves(rpcs, service), *more))
    if credentials is None:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(grace=None).wait()


def reflects(version: str, *services: str) -> grpc.GenericRpcHandler:
    """Server reflection of one version, telling of the services."""
    pool = pool_of(backend_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
    return _serves(version, reflection.ReflectionServicer(services, pool))


def describes(version: str, service: str, rpcs: Sequence[str]) -> grpc.GenericRpcHandler:
    """Server reflection of a service that no installed code describes."""
    package, _, name = service.rpartition(".")
    file = descriptor_pb2.FileDescriptorProto(name=f"{service}.proto", package=package)
    file.message_type.add(name="Message")
    made = file.service.add(name=name)
    for rpc in rpcs:
        kind = f".{package}.Message"
        made.method.add(name=rpc, input_type=kind, output_type=kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return _serves(version, reflection.ReflectionServicer([service], pool))


def _serves(version: str, servicer: Any) -> grpc.GenericRpcHandler:
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return _reflection(version, handler)


def reflects_badly(version: str, handler: Handler) -> grpc.GenericRpcHandler:
    """Server reflection that answers as it is told."""
    return _reflection(version, grpc.unary_stream_rpc_method_handler(handler))


def _reflection(version: str, handler: grpc.RpcMethodHandler) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(
        f"grpc.reflection.{version}.ServerReflection", {"ServerReflectionInfo": handler}
    )
