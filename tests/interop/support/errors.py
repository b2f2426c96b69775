"""A Python service of errors, and a Python client of the same service in any language.

A call names a row, as `build/mismatch`, or `held/MODEL`, a failure of a handler that holds a model.
Streaming methods answer with a message before the error, unless the row is `refuse/...`: the same
error as `build/...`, before any work.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent import futures
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from google.protobuf.wrappers_pb2 import StringValue

import grpcerrors
from tests.interop.support import vectors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import TypeAlias

    Behaviours: TypeAlias = tuple[Callable[..., Any], ...]  # in the order of SHAPES

DETAILS = "grpc-status-details-bin"
UNEXECUTED = "grpcerrors-unexecuted"
SHAPES = ("Unary", "ServerStream", "ClientStream", "Bidi")
STREAMING = ("ServerStream", "Bidi")  # answer with a stream
SECONDS = 60.0  # that only a hang reaches

_ANY = [("grpc.max_receive_message_length", -1)]  # requests of any length
_CODECS = {
    "request_deserializer": StringValue.FromString,
    "response_serializer": StringValue.SerializeToString,
}


def received(row: str, shape: str) -> int:
    """Return how many messages come before the error of a row."""
    return int(shape in STREAMING and not row.startswith("refuse/"))


def _fail(context: Any, row: str) -> Any:
    """End a call as its row says; on an aio server, the result must be awaited."""
    kind, _, name = row.partition("/")
    if kind in {"build", "refuse"}:
        given = vectors.BUILD[name]
        error = grpcerrors.ContractError(
            vectors.CONDITIONS[given["condition"]],
            started=given["started"],
            retry_after=given["retry_after"],
            **given["fields"],
        )
        return grpcerrors.abort(context, error)
    given = vectors.DETECT[name]
    values = [bytes.fromhex(value) for value in given["details_hex"] or ()]
    details = ((DETAILS, value) for value in values)
    context.set_trailing_metadata((*details, *map(tuple, given["trailers"])))
    return context.abort(vectors.CODES[given["code"]], given["message"])


def _unary(request: StringValue, context: Any) -> Any:
    return _fail(context, request.value)


def _server_stream(request: StringValue, context: Any) -> Iterator[StringValue]:
    if received(request.value, "ServerStream"):
        yield request
    _fail(context, request.value)


def _client_stream(requests: Iterator[StringValue], context: Any) -> Any:
    return _fail(context, next(requests).value)


def _bidi(requests: Iterator[StringValue], context: Any) -> Iterator[StringValue]:
    return _server_stream(next(requests), context)


async def _aio_unary(request: StringValue, context: Any) -> Any:
    await _fail(context, request.value)


async def _aio_server_stream(request: StringValue, context: Any) -> AsyncIterator[StringValue]:
    if received(request.value, "ServerStream"):
        yield request
    await _fail(context, request.value)


async def _aio_client_stream(requests: AsyncIterator[StringValue], context: Any) -> Any:
    await _fail(context, (await anext(requests)).value)


async def _aio_bidi(
    requests: AsyncIterator[StringValue], context: Any
) -> AsyncIterator[StringValue]:
    async for message in _aio_server_stream(await anext(requests), context):
        yield message


FAILING: Behaviours = (_unary, _server_stream, _client_stream, _bidi)
AIO_FAILING: Behaviours = (_aio_unary, _aio_server_stream, _aio_client_stream, _aio_bidi)


def _add(server: Any, behaviours: Behaviours) -> int:
    kinds = (
        grpc.unary_unary_rpc_method_handler,
        grpc.unary_stream_rpc_method_handler,
        grpc.stream_unary_rpc_method_handler,
        grpc.stream_stream_rpc_method_handler,
    )
    made = [kind(behaviour, **_CODECS) for kind, behaviour in zip(kinds, behaviours, strict=True)]
    methods = dict(zip(SHAPES, made, strict=True))
    service = grpc.method_handlers_generic_handler("interop.Errors", methods)
    server.add_generic_rpc_handlers((service,))
    port: int = server.add_insecure_port("127.0.0.1:0")
    return port


@contextmanager
def serving(behaviours: Behaviours = FAILING, interceptors: Any = ()) -> Iterator[str]:
    """Serve, by default every row, on a free port of a sync server; yield the address."""
    server = grpc.server(futures.ThreadPoolExecutor(16), interceptors=interceptors, options=_ANY)
    port = _add(server, behaviours)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextmanager
def serving_aio(behaviours: Behaviours = AIO_FAILING, interceptors: Any = ()) -> Iterator[str]:
    """Do the same on an aio server, in a thread."""
    started: futures.Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = futures.Future()

    async def serve() -> None:
        server = grpc.aio.server(interceptors=interceptors, options=_ANY)
        port = _add(server, behaviours)
        await server.start()
        stopping = asyncio.Event()
        started.set_result((port, asyncio.get_running_loop(), stopping))
        await stopping.wait()
        await server.stop(None)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    port, loop, stopping = started.result(SECONDS)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(SECONDS)
        assert not thread.is_alive()


class Answer(NamedTuple):
    """The error of a call, and the number of messages before it."""

    error: grpc.RpcError
    received: int

    def trailers(self, name: str) -> list[Any]:
        """Return the values of a trailer."""
        return [value for key, value in self.error.trailing_metadata() or () if key == name]

    @property
    def details(self) -> list[bytes]:
        """The values of grpc-status-details-bin."""
        return self.trailers(DETAILS)


def method(channel: Any, shape: str) -> Callable[..., Any]:
    made: Callable[..., Any] = {
        "Unary": channel.unary_unary,
        "ServerStream": channel.unary_stream,
        "ClientStream": channel.stream_unary,
        "Bidi": channel.stream_stream,
    }.get(shape, channel.unary_unary)(
        f"/interop.Errors/{shape}",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )
    return made


def _request(shape: str, row: str) -> Any:
    request = StringValue(value=row)
    return iter([request]) if shape in {"ClientStream", "Bidi"} else request


def call(channel: grpc.Channel, shape: str, row: str) -> Answer:
    """Request a row; raise AssertionError if no error comes."""
    received = 0
    try:
        replies = method(channel, shape)(_request(shape, row), timeout=SECONDS)
        if shape in STREAMING:
            for _ in replies:
                received += 1
    except grpc.RpcError as error:
        return Answer(error, received)
    msg = f"{shape} {row} ended without an error"
    raise AssertionError(msg)


async def call_aio(channel: grpc.aio.Channel, shape: str, row: str) -> Answer:
    """Do the same as `call` on an aio channel."""
    received = 0
    try:
        replies = method(channel, shape)(_request(shape, row), timeout=SECONDS)
        if shape in STREAMING:
            async for _ in replies:
                received += 1
        else:
            await replies
    except grpc.RpcError as error:
        return Answer(error, received)
    msg = f"{shape} {row} ended without an error"
    raise AssertionError(msg)
