"""A Python service of errors, and a Python client of the same service in any language.

A call names a row, as `build/mismatch`. Streaming methods answer with a message before the error.
"""

from __future__ import annotations

from concurrent import futures
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from google.protobuf.wrappers_pb2 import StringValue

import grpcerrors
from tests.interop.support import vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DETAILS = "grpc-status-details-bin"
SHAPES = ("Unary", "ServerStream", "ClientStream", "Bidi")
SECONDS = 60.0  # that only a hang reaches


def _fail(context: Any, row: str) -> Any:
    kind, _, name = row.partition("/")
    if kind == "build":
        given = vectors.BUILD[name]
        condition = vectors.CONDITIONS[given["condition"]]
        error = grpcerrors.ContractError(
            condition,
            started=given["started"],
            retry_after=given["retry_after"],
            **given["fields"],
        )
        return grpcerrors.abort(context, error)
    given = vectors.DETECT[name]
    values = [bytes.fromhex(value) for value in given["details_hex"] or ()]
    details = ((DETAILS, value) for value in values)
    context.set_trailing_metadata((*details, *map(tuple, given.get("trailers", ()))))
    return context.abort(vectors.CODES[given["code"]], given["message"])


def _unary(request: StringValue, context: Any) -> Any:
    return _fail(context, request.value)


def _server_stream(request: StringValue, context: Any) -> Iterator[StringValue]:
    yield request
    _fail(context, request.value)


def _client_stream(requests: Iterator[StringValue], context: Any) -> Any:
    return _fail(context, next(requests).value)


def _bidi(requests: Iterator[StringValue], context: Any) -> Iterator[StringValue]:
    return _server_stream(next(requests), context)


@contextmanager
def serving() -> Iterator[str]:
    """Serve every row on a free port; yield the address."""
    codecs = {
        "request_deserializer": StringValue.FromString,
        "response_serializer": StringValue.SerializeToString,
    }
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(_unary, **codecs),
        "ServerStream": grpc.unary_stream_rpc_method_handler(_server_stream, **codecs),
        "ClientStream": grpc.stream_unary_rpc_method_handler(_client_stream, **codecs),
        "Bidi": grpc.stream_stream_rpc_method_handler(_bidi, **codecs),
    }
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_registered_method_handlers("interop.Errors", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


class Answer(NamedTuple):
    """The error of a call, and the number of messages before it."""

    error: grpc.RpcError
    received: int

    @property
    def details(self) -> list[bytes]:
        """The values of grpc-status-details-bin."""
        return [value for key, value in self.error.trailing_metadata() or () if key == DETAILS]


def _method(channel: Any, shape: str) -> Callable[..., Any]:
    method: Callable[..., Any] = {
        "Unary": channel.unary_unary,
        "ServerStream": channel.unary_stream,
        "ClientStream": channel.stream_unary,
        "Bidi": channel.stream_stream,
    }.get(shape, channel.unary_unary)(
        f"/interop.Errors/{shape}",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )
    return method


def call(channel: grpc.Channel, shape: str, row: str) -> Answer:
    """Request a row; raise AssertionError if no error comes."""
    request: Any = StringValue(value=row)
    request = iter([request]) if shape in {"ClientStream", "Bidi"} else request
    received = 0
    try:
        replies = _method(channel, shape)(request, timeout=SECONDS)
        if shape in {"ServerStream", "Bidi"}:
            for _ in replies:
                received += 1
    except grpc.RpcError as error:
        return Answer(error, received)
    msg = f"{shape} {row} ended without an error"
    raise AssertionError(msg)


async def call_aio(channel: grpc.aio.Channel, shape: str, row: str) -> Answer:
    """Do the same as `call` on an aio channel."""
    request: Any = StringValue(value=row)
    request = iter([request]) if shape in {"ClientStream", "Bidi"} else request
    received = 0
    try:
        replies = _method(channel, shape)(request, timeout=SECONDS)
        if shape in {"ServerStream", "Bidi"}:
            async for _ in replies:
                received += 1
        else:
            await replies
    except grpc.RpcError as error:
        return Answer(error, received)
    msg = f"{shape} {row} ended without an error"
    raise AssertionError(msg)
