"""The router's traces: a span for each request, an event for each attempt, a span for each load.

Only `serve --traces`, and programs that pass a `Tracing` to SmartRouter, import this module; it
needs the extra `grpcerrors-router[otel]`.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from contextvars import ContextVar
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from grpcerrors import classify
from grpcerrors_protocol import tracing
from grpcerrors_protocol.logs import request_id
from grpcerrors_router.events import Events
from grpcerrors_router.validation import split_address

if TYPE_CHECKING:
    from collections.abc import Iterable

    import grpc

    from grpcerrors_router.calls.reconcile import Reaction
    from grpcerrors_router.view.entries import ReplicaEntry

_REMEMBERED = 16
"""Loads of a model that a request may be linked to."""

_current: ContextVar[RequestTrace | None] = ContextVar("grpcerrors request", default=None)


class Tracing(Events):
    """Makes spans, and receives the loads of one router as its events.

    Args:
        provider: where the spans go; by default OpenTelemetry's global provider.
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer(
            "grpcerrors_router", version("grpcerrors-router"), provider, schema_url=tracing.SCHEMA
        )
        self._running: dict[tuple[str, str, int], Span] = {}
        self._loads: defaultdict[str, deque[_Load]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    def serve(self, path: str, metadata: Iterable[tuple[str, Any]], *, known: bool) -> RequestTrace:
        """Start the SERVER span of a request to the gateway, and make it the task's request.

        Args:
            path: that of the RPC.
            metadata: of the request, with the caller's context.
            known: whether the RPC is one of the protocols that the gateway knows.
        """
        metadata = tuple(metadata)
        above = tracing.parent(metadata)
        span = tracing.start(self._tracer, SpanKind.SERVER, path, above, known=known)
        request = RequestTrace(self, span, client=False)
        if span.is_recording() and (id_ := request_id(metadata)):
            span.set_attribute(tracing.REQUEST_ID, id_)
        _current.set(request)
        return request

    def call(self, path: str) -> RequestTrace:
        """Return the task's request, or start the CLIENT span of a call in process."""
        request = _current.get()
        if request is not None:
            return request
        span = tracing.start(self._tracer, SpanKind.CLIENT, path, None)
        return RequestTrace(self, span, client=True)

    @staticmethod
    def headers() -> tuple[tuple[str, str], ...]:
        """Return the metadata for a call of the router's own, such as LoadModel."""
        return tracing.headers(None)

    def loads_since(self, model: str, since: float) -> list[Span]:
        """Return the loads of a model that ran after `since`, on the clock of `time.monotonic`."""
        loads = self._loads.get(model, ())
        return [load.span for load in loads if load.ended is None or load.ended >= since]

    # Events

    def load_started(self, model: str, node: str, generation: int) -> None:
        """Start the span of a load. The rest of the task, which loads the model, is in it."""
        attributes: dict[str, Any] = {
            tracing.MODEL: model,
            tracing.NODE: node,
            tracing.GENERATION: generation,
        }
        # Not below the request that happens to be first: all that wait are linked to it.
        span = self._tracer.start_span("load", Context(), attributes=attributes)
        self._running[model, node, generation] = span
        self._loads[model].append(_Load(span))
        otel.attach(trace.set_span_in_context(span))

    def load_finished(
        self,
        model: str,
        node: str,
        generation: int,
        seconds: float,  # noqa: ARG002
        error: str,
        *,
        postponed: bool = False,  # noqa: ARG002
    ) -> None:
        """End the span of a load."""
        span = self._running.pop((model, node, generation))
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end()
        for load in self._loads[model]:
            if load.span is span:
                load.ended = time.monotonic()


class _Load:
    """The span of a load, and when it ended on the monotonic clock."""

    __slots__ = ("ended", "span")

    def __init__(self, span: Span) -> None:
        self.span = span
        self.ended: float | None = None


class RequestTrace:
    """The span of one request."""

    __slots__ = ("_answers", "_tracing", "client", "span", "trace_id")

    def __init__(self, made_by: Tracing, span: Span, *, client: bool) -> None:
        self._tracing = made_by
        self._answers: dict[str, Any] | None = None
        self.span = span
        self.client = client
        self.trace_id = tracing.hex_id(span) if span.is_recording() else ""

    def metadata(self, sent: Iterable[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
        """Return the metadata for a node, with this span as the parent of the node's."""
        return tracing.with_headers(sent, trace.set_span_in_context(self.span, Context()))

    def waited(self, model: str, since: float) -> None:
        """Link the request to the loads for which it has waited since then."""
        for span in self._tracing.loads_since(model, since):
            self.span.add_link(span.get_span_context())

    def answered(self, entry: ReplicaEntry) -> None:
        """Note that a replica has begun to answer. Its attempt ends with the request."""
        if self.span.is_recording():
            self._answers = self._where(entry)

    def failed(self, entry: ReplicaEntry, error: grpc.aio.AioRpcError, reaction: Reaction) -> None:
        """Add an event for an attempt that failed, with what the router made of the error."""
        if not self.span.is_recording():
            return
        self._answers = None
        result = {"grpcerrors.reaction": reaction.name.lower()}
        if (evidence := classify(error).evidence) is not None:
            result["grpcerrors.evidence"] = evidence.value
        self._add(self._where(entry) | result, error.code())

    def end(self, code: grpc.StatusCode, why: str = "") -> None:
        """End the span, and the attempt that is being answered."""
        if self._answers is not None:
            self._add(self._answers, code)
        tracing.end(self.span, code, client=self.client, why=why)

    def _where(self, entry: ReplicaEntry) -> dict[str, Any]:
        where: dict[str, Any] = {
            tracing.MODEL: entry.model,
            tracing.NODE: entry.node.name,
            tracing.GENERATION: entry.generation,
        }
        self.span.set_attributes(where)
        if self.client:
            host, port = split_address(entry.node.info.address)
            self.span.set_attributes({"server.address": host, "server.port": port})
        return where

    def _add(self, attempt: dict[str, Any], code: grpc.StatusCode) -> None:
        self.span.add_event("attempt", attempt | {"rpc.response.status_code": code.name})
