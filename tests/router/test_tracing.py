"""Traces: real calls through a gateway and in process, with the spans kept in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import model_not_loaded
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from tests.router.conftest import eventually
from tests.router.support.rawnode import Script, Stack, stack

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from grpcerrors_router.tracing import Tracing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

STALE = model_not_loaded("raw")
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = (("traceparent", f"00-{TRACE}-{PARENT}-01"), ("tracestate", "a=b"))
REPLY = pb.Reply(message=b"hi").SerializeToString()


class Traced:
    """A fleet whose spans are kept in memory."""

    def __init__(self, made: Stack, provider: TracerProvider, kept: InMemorySpanExporter) -> None:
        self.stack = made
        self.node = made.node
        self.provider = provider
        self.stub = BackendStub(made.through)
        self._kept = kept

    async def spans(self, name: str, count: int = 1) -> list[ReadableSpan]:
        """Return the finished spans of a name, once there are as many as expected."""

        def found() -> list[ReadableSpan]:
            return [span for span in self._kept.get_finished_spans() if span.name == name]

        await eventually(lambda: len(found()) >= count)
        assert len(found()) == count
        return found()

    async def span(self, name: str = "backend.Backend/Predict") -> ReadableSpan:
        (span,) = await self.spans(name)
        return span


@pytest.fixture
async def traced(tmp_path: Path) -> AsyncIterator[Traced]:
    provider, kept = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    async with stack(tmp_path, tracing=Tracing(provider)) as made:
        made.node.script = Script(replies=(REPLY,))
        yield Traced(made, provider, kept)
    provider.shutdown()


def attributes(span: Any) -> dict[str, Any]:
    return dict(span.attributes)


def attempts(span: ReadableSpan) -> list[tuple[Any, ...]]:
    """Return node, code, evidence and reaction of each attempt."""
    rows = []
    for event in span.events:
        assert event.name == "attempt"
        said = attributes(event)
        assert said["grpcerrors.generation"] > 0
        rows.append(
            (
                said["grpcerrors.node"],
                said["rpc.response.status_code"],
                said.get("grpcerrors.evidence"),
                said.get("grpcerrors.reaction"),
            )
        )
    return rows


def sent_context(metadata: Any) -> tuple[str, str]:
    """Return the trace and the span that a call names as its parent."""
    (header,) = [value for key, value in metadata if key == "traceparent"]
    _, trace, span, flags = header.split("-")
    assert int(flags, 16) & 1, "it is not sampled"
    return trace, span


def ids(span: ReadableSpan) -> tuple[str, str]:
    context = span.get_span_context()
    assert context is not None
    return format_trace_id(context.trace_id), format_span_id(context.span_id)


async def test_one_trace_goes_from_the_caller_through_the_router_to_the_node(
    traced: Traced,
) -> None:
    request = pb.PredictOptions(ModelIdentity="m")
    await traced.stub.Predict(request, metadata=(*CALLER, ("x-request-id", "r-1")))
    span = await traced.span()
    assert span.kind is SpanKind.SERVER
    assert ids(span)[0] == TRACE
    assert span.parent is not None
    assert format_span_id(span.parent.span_id) == PARENT
    said = attributes(span)
    generation = said.pop("grpcerrors.generation")
    assert said == {
        "rpc.system.name": "grpc",
        "rpc.method": "backend.Backend/Predict",
        "rpc.response.status_code": "OK",
        "grpcerrors.model": "m",
        "grpcerrors.node": "raw-1",
        "grpcerrors.request_id": "r-1",
    }
    assert generation == traced.stack.router.table.nodes["raw-1"].replicas["m"].generation
    assert span.status.status_code is StatusCode.UNSET
    assert attempts(span) == [("raw-1", "OK", None, None)]
    (seen,) = traced.node.seen
    assert sent_context(seen.metadata) == ids(span)
    assert ("tracestate", "a=b") in seen.metadata


async def test_a_load_has_a_span_to_which_the_requests_that_wait_are_linked(
    traced: Traced,
) -> None:
    traced.node.load_gate = asyncio.Event()
    request = pb.PredictOptions(ModelIdentity="m")
    calls = [traced.stub.Predict(request) for _ in range(3)]
    await eventually(lambda: traced.stack.router.state.waiting().get("m", (0, 0))[0] == 3)
    traced.node.load_gate.set()
    await asyncio.gather(*calls)
    load = await traced.span("load")
    assert load.parent is None
    assert load.kind is SpanKind.INTERNAL
    assert attributes(load).keys() == {
        "grpcerrors.model", "grpcerrors.node", "grpcerrors.generation",
    }  # fmt: skip
    for span in await traced.spans("backend.Backend/Predict", 3):
        assert [link.context.span_id for link in span.links] == [
            load.get_span_context().span_id  # type: ignore[union-attr]
        ]
    (metadata,) = traced.node.load_metadata
    assert sent_context(metadata) == ids(load)
    await traced.stub.Predict(request)
    *_, warm = await traced.spans("backend.Backend/Predict", 4)
    assert not warm.links


@pytest.mark.slow
async def test_a_load_that_fails_says_why(traced: Traced) -> None:
    traced.node.load_error = "no memory"
    with pytest.raises(grpc.aio.AioRpcError):
        await traced.stub.Predict(pb.PredictOptions(ModelIdentity="m"))
    load = await traced.span("load")
    assert load.status.status_code is StatusCode.ERROR
    assert load.status.description == "no memory"
    span = await traced.span()
    assert span.links
    assert attempts(span) == []
    assert attributes(span)["rpc.response.status_code"] == "FAILED_PRECONDITION"
    # The caller, not the server, is at fault by the conventions.
    assert span.status.status_code is StatusCode.UNSET


async def test_a_heal_is_an_attempt_with_its_evidence(traced: Traced) -> None:
    async def forgetful(requests: Any, context: Any) -> None:
        async for _ in requests:
            pass
        if len(traced.node.loads) == 1:
            await context.abort(STALE.code, STALE.details, tuple(STALE.trailing_metadata))
        await context.write(REPLY)

    traced.node.behave = forgetful
    await traced.stub.Predict(pb.PredictOptions(ModelIdentity="m"))
    span = await traced.span()
    assert attempts(span) == [
        ("raw-1", "FAILED_PRECONDITION", "details", "stale"),
        ("raw-1", "OK", None, None),
    ]
    loads = await traced.spans("load", 2)
    assert {link.context.span_id for link in span.links} == {
        load.get_span_context().span_id  # type: ignore[union-attr]
        for load in loads
    }
    # Without an id of its own, the request is known in the log and at the node by its trace.
    retry = traced.node.seen[-1]
    assert dict(retry.metadata)["x-request-id"] == ids(span)[0]


async def test_a_failure_is_an_error_with_its_type(traced: Traced) -> None:
    traced.node.script = Script((), (), grpc.StatusCode.INTERNAL, "out of cheese")
    with pytest.raises(grpc.aio.AioRpcError):
        await traced.stub.Predict(pb.PredictOptions(ModelIdentity="m"))
    span = await traced.span()
    assert attributes(span)["error.type"] == "INTERNAL"
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "out of cheese"
    assert attempts(span) == [("raw-1", "INTERNAL", None, "keep")]


@pytest.mark.slow
async def test_a_request_that_reaches_no_node_has_a_span(traced: Traced) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await traced.stub.Predict(pb.PredictOptions(ModelIdentity="nobody"))
    said = attributes(await traced.span())
    assert said["rpc.response.status_code"] == "NOT_FOUND"
    assert "grpcerrors.model" not in said


@pytest.mark.slow
async def test_a_method_that_a_caller_invents_names_no_span(traced: Traced) -> None:
    call = traced.stack.through.unary_unary("/made.Up/Method")
    await call(b"", metadata=(("x-model-id", "m"),))
    said = attributes(await traced.span("grpc"))
    assert said["rpc.method"] == "_OTHER"
    assert said["rpc.method_original"] == "made.Up/Method"


@pytest.mark.parametrize("deadline", [None, 0.2])
async def test_a_call_that_is_given_up_ends_its_span(
    traced: Traced, deadline: float | None
) -> None:
    async def hang(_requests: Any, _context: Any) -> None:
        await asyncio.Event().wait()

    traced.node.behave = hang
    await traced.stack.router.load("m")
    call = traced.stub.Predict(pb.PredictOptions(ModelIdentity="m"), timeout=deadline)
    if deadline is None:
        await eventually(lambda: traced.node.seen)
        call.cancel()
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call
    code = "CANCELLED" if deadline is None else "DEADLINE_EXCEEDED"
    assert attributes(await traced.span())["rpc.response.status_code"] == code


async def messages() -> AsyncIterator[Any]:
    yield pb.TranscriptLiveRequest(config=pb.TranscriptLiveConfig(language="en"))


async def _unary_stream(stub: Any, metadata: Any) -> None:
    request = pb.PredictOptions(ModelIdentity="m")
    assert [each async for each in stub.PredictStream(request, metadata=metadata)]


async def _stream_stream(stub: Any, metadata: Any) -> None:
    assert [each async for each in stub.AudioTranscriptionLive(messages(), metadata=metadata)]


async def _unary(stub: Any, metadata: Any) -> None:
    assert await stub.Predict(pb.PredictOptions(ModelIdentity="m"), metadata=metadata)


SHAPES: dict[str, Callable[[Any, Any], Any]] = {
    "Predict": _unary,
    "PredictStream": _unary_stream,
    "AudioTranscriptionLive": _stream_stream,
}


@pytest.mark.slow
@pytest.mark.parametrize("rpc", SHAPES)
@pytest.mark.parametrize("in_process", [False, True])
async def test_each_shape_is_traced(traced: Traced, rpc: str, *, in_process: bool) -> None:
    tracer = traced.provider.get_tracer("test")
    channel = traced.stack.router.channel("m") if in_process else traced.stack.through
    with tracer.start_as_current_span("caller") as caller:
        metadata = (("x-model-id", "m"), *(() if in_process else CALLER))
        await SHAPES[rpc](BackendStub(channel), metadata)
    span = await traced.span(f"backend.Backend/{rpc}")
    assert span.kind is (SpanKind.CLIENT if in_process else SpanKind.SERVER)
    assert attributes(span)["rpc.response.status_code"] == "OK"
    assert attempts(span) == [("raw-1", "OK", None, None)]
    expected = format_trace_id(caller.get_span_context().trace_id) if in_process else TRACE
    assert ids(span)[0] == expected
    assert sent_context(traced.node.seen[-1].metadata) == ids(span)


@pytest.mark.slow
async def test_a_client_stream_in_process_is_traced(traced: Traced) -> None:
    channel = traced.stack.router.channel("m")
    send = channel.stream_unary("/made.Up/Send", None, None)
    assert await send(iter([b"a", b"b"])) == REPLY
    span = await traced.span("made.Up/Send")
    assert attributes(span)["server.address"] == "127.0.0.1"
    assert attempts(span) == [("raw-1", "OK", None, None)]


@pytest.mark.slow
@pytest.mark.parametrize("rpc", SHAPES)
async def test_a_failure_in_process_is_an_error_of_the_client(traced: Traced, rpc: str) -> None:
    traced.node.script = Script((), (), grpc.StatusCode.NOT_FOUND, "no such voice")
    with pytest.raises(grpc.aio.AioRpcError):
        await SHAPES[rpc](BackendStub(traced.stack.router.channel("m")), ())
    span = await traced.span(f"backend.Backend/{rpc}")
    assert attributes(span)["error.type"] == "NOT_FOUND"
    assert span.status.status_code is StatusCode.ERROR


@pytest.mark.slow
async def test_a_stream_that_fails_late_is_one_attempt(traced: Traced) -> None:
    traced.node.script = Script((), (REPLY,), grpc.StatusCode.INTERNAL, "half way")
    for channel in (traced.stack.through, traced.stack.router.channel("m")):
        with pytest.raises(grpc.aio.AioRpcError):
            await _unary_stream(BackendStub(channel), ())
    for span in await traced.spans("backend.Backend/PredictStream", 2):
        assert [attempt[:2] for attempt in attempts(span)] == [("raw-1", "INTERNAL")]
        assert attributes(span)["error.type"] == "INTERNAL"


async def test_a_call_in_process_that_is_cancelled_ends_its_span(traced: Traced) -> None:
    traced.node.load_gate = asyncio.Event()
    call = BackendStub(traced.stack.router.channel("m")).Predict(pb.PredictOptions())
    await eventually(lambda: traced.node.loads)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert attributes(await traced.span())["rpc.response.status_code"] == "CANCELLED"
    traced.node.load_gate.set()


async def test_metrics_point_to_traces(traced: Traced) -> None:
    from prometheus_client.openmetrics.exposition import generate_latest  # noqa: PLC0415

    await traced.stub.Predict(pb.PredictOptions(ModelIdentity="m"), metadata=CALLER)
    await traced.span()
    text = (await asyncio.to_thread(generate_latest, traced.stack.metrics.registry)).decode()
    exemplars = [line for line in text.splitlines() if f'# {{trace_id="{TRACE}"}}' in line]
    assert {line.partition("{")[0] for line in exemplars} == {
        "rpc_server_call_duration_seconds_bucket",
        "rpc_client_call_duration_seconds_bucket",
    }
