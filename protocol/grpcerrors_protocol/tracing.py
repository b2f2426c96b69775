"""OpenTelemetry spans of gRPC calls.

The extras `grpcerrors-router[otel]` and `grpcerrors-backends[otel]` install what this module
imports. Without `--traces`, no program imports it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from grpcerrors_protocol.conventions import OTHER, error_type

if TYPE_CHECKING:
    from collections.abc import Iterable

    import grpc
    from opentelemetry.sdk.trace import TracerProvider

MODEL, NODE, GENERATION = "grpcerrors.model", "grpcerrors.node", "grpcerrors.generation"
REQUEST_ID = "grpcerrors.request_id"
SCHEMA = "https://opentelemetry.io/schemas/1.45.0"


def provider(service: str, instance: str) -> TracerProvider:
    """Return a provider that sends spans over OTLP/gRPC.

    The standard variables say where and how: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`,
    `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER` and so on.

    Args:
        service: the default of `OTEL_SERVICE_NAME`.
        instance: the name of this process, as `service.instance.id`.
    """
    # Only programs export spans; a caller in process does so as it likes.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    names = Resource.create({"service.name": service, "service.instance.id": instance})
    made = TracerProvider(resource=names.merge(OTELResourceDetector().detect()))
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made


def finish(made: TracerProvider, seconds: float = 5.0) -> None:
    """Send the spans that wait, and end the provider; give up after that many seconds."""
    # A daemon, since the exporter tries again for a minute if nobody listens.
    thread = threading.Thread(target=made.shutdown, daemon=True)
    thread.start()
    thread.join(seconds)


def start(
    tracer: trace.Tracer, kind: SpanKind, path: str, context: Context | None, *, known: bool = True
) -> Span:
    """Start the span of a call.

    Args:
        tracer: the tracer.
        kind: SERVER or CLIENT.
        path: that of the RPC, "/package.Service/Method".
        context: the parent; None for the current one.
        known: whether the name of the method is one of a few. A caller may invent others.
    """
    method = path.removeprefix("/")
    attributes = {"rpc.system.name": "grpc", "rpc.method": method if known else OTHER}
    if not known:
        attributes["rpc.method_original"] = method
    name = method if known else "grpc"
    return tracer.start_span(name, context, kind, attributes)


def end(span: Span, code: grpc.StatusCode, *, client: bool = False, why: str = "") -> None:
    """End the span of a call.

    Args:
        span: the span.
        code: the status with which the call ended.
        client: whether this is the side of the caller.
        why: the text of the error.
    """
    if span.is_recording():
        span.set_attribute("rpc.response.status_code", code.name)
        if kind := error_type(code, client=client):
            span.set_attribute("error.type", kind)
            span.set_status(Status(StatusCode.ERROR, why or None))
    span.end()


def parent(metadata: Iterable[tuple[str, Any]]) -> Context:
    """Return the context that a caller has sent; an empty one if it sent none."""
    carrier = {key: value for key, value in metadata if isinstance(value, str)}
    return propagate.extract(carrier, Context())


def headers(context: Context | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata that carries a context to the next server; None for the current one."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context)
    return tuple(carrier.items())


def with_headers(
    metadata: Iterable[tuple[str, Any]], context: Context
) -> tuple[tuple[str, Any], ...]:
    """Return the metadata with that context in place of the caller's."""
    fields = propagate.get_global_textmap().fields
    return (*[pair for pair in metadata if pair[0] not in fields], *headers(context))


def hex_id(span: Span) -> str:
    """Return the trace id of a span, as 32 hexadecimal digits."""
    return trace.format_trace_id(span.get_span_context().trace_id)
