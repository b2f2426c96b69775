"""Servers whose handlers get no malformed messages.

For a message that cannot be parsed, gRPC answers UNKNOWN or INTERNAL and logs a traceback, as for a
bug of the server. It is the client's mistake: INVALID_ARGUMENT.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping

_MALFORMED = object()
_CODE = grpc.StatusCode.INVALID_ARGUMENT


class Wellformed:
    """What the generated functions `add_…Servicer_to_server` take in place of `server`."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Register the handlers of a service."""
        checked = {name: wellformed(handler) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, checked)

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """Add handlers that find the handler of a method."""
        self._server.add_generic_rpc_handlers(tuple(map(_Generic, handlers)))


class _Generic(grpc.GenericRpcHandler):  # type: ignore[misc,unused-ignore]
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def service(self, handler_call_details: Any) -> Any:
        found = self._inner.service(handler_call_details)
        return None if found is None else wellformed(found)


def wellformed(handler: Any) -> Any:
    """Return a method handler like `handler` that answers INVALID_ARGUMENT to malformed messages.

    It may be one of a sync or of an aio server.
    """
    if handler.request_deserializer is None:
        return handler
    name, make, wrap = _SHAPES[bool(handler.request_streaming), bool(handler.response_streaming)]
    return make(
        wrap(getattr(handler, name), _text(handler.request_deserializer)),
        _lenient(handler.request_deserializer),
        handler.response_serializer,
    )


def _text(deserialize: Any) -> str:
    descriptor = getattr(getattr(deserialize, "__self__", None), "DESCRIPTOR", None)
    kind = "message of the type that this RPC takes" if descriptor is None else descriptor.full_name
    return f"the request is malformed; send a {kind}"


def _lenient(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _MALFORMED

    return parse


def _one(behavior: Callable[..., Any], text: str) -> Callable[..., Any]:
    """Return a behavior of an RPC with one request."""

    @functools.wraps(behavior)
    def sync(request: Any, context: Any, *callback: Any) -> Any:
        if request is _MALFORMED:
            context.abort(_CODE, text)
        return behavior(request, context, *callback)

    @functools.wraps(behavior)
    async def coroutine(request: Any, context: Any) -> Any:
        if request is _MALFORMED:
            await context.abort(_CODE, text)
        return await behavior(request, context)

    @functools.wraps(behavior)
    async def generator(request: Any, context: Any) -> AsyncIterator[Any]:
        if request is _MALFORMED:
            await context.abort(_CODE, text)
        async for answer in behavior(request, context):
            yield answer

    if inspect.isasyncgenfunction(behavior):
        return generator
    return coroutine if inspect.iscoroutinefunction(behavior) else sync


def _checked(requests: Iterator[Any], context: Any, text: str) -> Iterator[Any]:
    for request in requests:
        if request is _MALFORMED:
            context.abort(_CODE, text)
        yield request


async def _checked_aio(requests: AsyncIterator[Any], context: Any, text: str) -> AsyncIterator[Any]:
    async for request in requests:
        if request is _MALFORMED:
            await context.abort(_CODE, text)
        yield request


def _many(behavior: Callable[..., Any], text: str) -> Callable[..., Any]:
    """Return a behavior of an RPC with a stream of requests."""

    @functools.wraps(behavior)
    def either(requests: Any, context: Any) -> Any:
        is_aio = hasattr(requests, "__aiter__")
        checked = _checked_aio if is_aio else _checked
        return behavior(checked(requests, context, text), context)

    @functools.wraps(behavior)
    async def coroutine(requests: Any, context: Any) -> Any:
        return await either(requests, context)

    @functools.wraps(behavior)
    async def generator(requests: Any, context: Any) -> AsyncIterator[Any]:
        async for answer in either(requests, context):
            yield answer

    if inspect.isasyncgenfunction(behavior):
        return generator
    return coroutine if inspect.iscoroutinefunction(behavior) else either


_SHAPES = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler, _one),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler, _one),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler, _many),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler, _many),
}
