"""Traces of real processes, sent over OTLP to a collector."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router.cli.common import check_traces
from tests.router.conftest import eventually
from tests.router.support.processes import fleet

pytest.importorskip("opentelemetry.proto")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MODELS = '[models.a]\nbackend = "echo"\n'


class Collector:
    """Receives spans, and keeps their services, names and parents by trace."""

    def __init__(self) -> None:
        self.traces: defaultdict[str, list[tuple[str, str, str, str]]] = defaultdict(list)

    async def export(self, request: Any, _context: Any) -> Any:
        for resource in request.resource_spans:
            names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.traces[span.trace_id.hex()].append(
                        (
                            names["service.name"],
                            span.name,
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                        )
                    )
        return ExportTraceServiceResponse()


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    made, server = Collector(), grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(
        made.export,
        ExportTraceServiceRequest.FromString,
        ExportTraceServiceResponse.SerializeToString,
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    handler = grpc.method_handlers_generic_handler(service, {"Export": method})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    yield made
    await server.stop(0)


@pytest.mark.slow
async def test_one_trace_has_the_spans_of_router_and_node(
    collector: Collector, tmp_path: Path
) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with fleet(tmp_path, MODELS) as world:
        gateway = await world.gateway("127.0.0.1:0", "--traces", "--name", "r1")
        await world.node(gateway.address, "n1", "127.0.0.1:0", "--traces")
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            await BackendStub(channel).Predict(
                pb.PredictOptions(Prompt="hi", ModelIdentity="a"),
                metadata=(("traceparent", f"00-{trace}-{parent}-01"),),
            )
        await eventually(lambda: len(collector.traces[trace]) == 2)
        spans = {service: rest for service, *rest in collector.traces[trace]}
        name, routers, above = spans["grpcerrors-router"]
        assert (name, above) == ("backend.Backend/Predict", parent)
        assert spans["grpcerrors-backend"][::2] == ["backend.Backend/Predict", routers]
        # The load is a trace of its own, which goes to the node too.
        await eventually(lambda: len(collector.traces) == 2)
        (load,) = [spans for each, spans in collector.traces.items() if each != trace]
        await eventually(lambda: len(load) == 2)
        assert {name for _, name, *_ in load} == {"load", "backend.Backend/LoadModel"}
        assert await gateway.stop() == 0


@pytest.mark.slow
async def test_a_collector_that_is_away_does_not_keep_the_router_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    async with fleet(tmp_path, MODELS) as world:
        gateway = await world.gateway("127.0.0.1:0", "--traces", "--log-format", "json")
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await BackendStub(channel).Predict(pb.PredictOptions(ModelIdentity="b"))
        async with asyncio.timeout(60):
            assert await gateway.stop() == 0
        lines = (tmp_path / "0-grpcerrors_router.log").read_text().splitlines()
        assert all(line.startswith("{") for line in lines), lines


def test_traces_need_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    check_traces()
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(ValueError, match=r"pip install 'grpcerrors-router\[otel\]'"):
        check_traces()
