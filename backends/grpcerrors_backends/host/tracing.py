"""The traces of a host: one span for each call, as a child of the router's.

Only `--traces` imports this module; it needs the extra `grpcerrors-backends[otel]`.
"""

from __future__ import annotations

import asyncio
import functools
from contextlib import aclosing, contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from grpcerrors_protocol import tracing
from grpcerrors_protocol.conventions import METHODS
from grpcerrors_protocol.logs import request_id
from grpcerrors_protocol.metadata import GENERATION, MODEL_ID

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
    from contextlib import AbstractContextManager

_SHAPES = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class _Spans:
    """Wraps the handlers of a server; subclassed for sync and aio servers."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._tracer = trace.get_tracer(
            "grpcerrors_backends",
            version("grpcerrors-backends"),
            provider,
            schema_url=tracing.SCHEMA,
        )

    def _traced(self, handler: Any, path: str, *, is_aio: bool) -> Any:
        if handler is None or path not in METHODS:  # health and reflection
            return handler
        shape = next(shape for shape in _SHAPES if getattr(handler, shape) is not None)
        kind = ("_aio" if is_aio else "") + ("_stream" if shape.endswith("stream") else "_unary")
        behaviour = getattr(self, kind)(path, getattr(handler, shape))
        return getattr(grpc, f"{shape}_rpc_method_handler")(
            behaviour, handler.request_deserializer, handler.response_serializer
        )

    @contextmanager
    def _span(self, path: str, context: Any) -> Iterator[trace.Span]:
        metadata = tuple(context.invocation_metadata() or ())
        span = tracing.start(self._tracer, SpanKind.SERVER, path, tracing.parent(metadata))
        if span.is_recording():
            for key, value in metadata:
                if key == MODEL_ID:
                    span.set_attribute(tracing.MODEL, value)
                elif key == GENERATION and value.isdecimal():
                    span.set_attribute(tracing.GENERATION, int(value))
            if id_ := request_id(metadata):
                span.set_attribute(tracing.REQUEST_ID, id_)
        code, why = grpc.StatusCode.OK, ""
        try:
            yield span
        except GeneratorExit:
            code = grpc.StatusCode.CANCELLED
            raise
        except BaseException as error:
            code = context.code() or _code_of(error)
            why = _text(context.details())
            raise
        finally:
            tracing.end(span, code, why=why)

    def _unary(self, path: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(behaviour)  # gRPC looks for attributes of the function
        def handle(request: Any, context: Any) -> Any:
            with self._span(path, context) as span, _current(span):
                return behaviour(request, context)

        return handle

    def _stream(self, path: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(behaviour)
        def handle(request: Any, context: Any) -> Iterator[Any]:
            with self._span(path, context):
                yield from behaviour(request, context)

        return handle

    def _aio_unary(
        self, path: str, behaviour: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        async def handle(request: Any, context: Any) -> Any:
            with self._span(path, context) as span, _current(span):
                return await behaviour(request, context)

        return handle

    def _aio_stream(
        self, path: str, behaviour: Callable[..., AsyncGenerator[Any]]
    ) -> Callable[..., AsyncGenerator[Any]]:
        async def handle(request: Any, context: Any) -> AsyncGenerator[Any]:
            with self._span(path, context):
                async with aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        yield response

        return handle


class Spans(_Spans, grpc.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """Traces the calls of a sync server."""

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return the handler, traced."""
        found = continuation(handler_call_details)
        return self._traced(found, handler_call_details.method, is_aio=False)


class AioSpans(_Spans, grpc.aio.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """Traces the calls of an aio server."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return the handler, traced."""
        found = await continuation(handler_call_details)
        return self._traced(found, handler_call_details.method, is_aio=True)


def _current(span: trace.Span) -> AbstractContextManager[trace.Span]:
    """Make a span the parent of those that the model makes. `_span` sets its status."""
    return trace.use_span(span, record_exception=False, set_status_on_exception=False)


def _code_of(error: BaseException) -> grpc.StatusCode:
    """Return the code with which gRPC answers an exception of a handler."""
    cancelled = isinstance(error, asyncio.CancelledError)
    return grpc.StatusCode.CANCELLED if cancelled else grpc.StatusCode.UNKNOWN


def _text(details: str | bytes | None) -> str:
    return details.decode(errors="replace") if isinstance(details, bytes) else details or ""
