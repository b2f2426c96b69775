"""The spans of a host, on a sync and on an aio server."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors_backends.echo import Echo
from grpcerrors_backends.host.server import Config, Host
from grpcerrors_backends.model import BadInput, Model
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id, get_tracer

from tests.backends.support.hosting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Iterator

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALL = (("traceparent", f"00-{TRACE}-{PARENT}-01"), ("x-model-id", "m"), ("x-request-id", "r-1"))


class Sync(Model):
    """Answers like Echo, in threads; makes a span of its own."""

    name = "sync"

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer

    @classmethod
    def load(cls, options: pb.ModelOptions) -> Sync:
        return cls(get_tracer("model", tracer_provider=PROVIDER))

    def Predict(self, request: pb.PredictOptions, context: Any) -> pb.Reply:
        with self._tracer.start_as_current_span("inference"):
            if request.Prompt == "bad":
                raise BadInput("no")
        return pb.Reply(message=request.Prompt.encode())

    def PredictStream(self, request: pb.PredictOptions, context: Any) -> Iterator[pb.Reply]:
        for word in request.Prompt.split():
            yield pb.Reply(message=word.encode())


KEPT = InMemorySpanExporter()
PROVIDER = TracerProvider(shutdown_on_exit=False)
PROVIDER.add_span_processor(SimpleSpanProcessor(KEPT))


@pytest.fixture(params=[Sync, Echo])
def stub(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A host with a loaded model `m`."""
    KEPT.clear()
    host = Host(request.param, Config(traces=PROVIDER, grace=0.1))
    ready: queue.Queue[str] = queue.Queue()
    thread = threading.Thread(target=host.run, args=(ready.put,))
    thread.start()
    try:
        address = ready.get(timeout=PATIENCE)
        with grpc.insecure_channel(address) as channel:
            made = BackendStub(channel)
            assert made.LoadModel(pb.ModelOptions(Model="m"), metadata=CALL[:2]).success
            yield made
    finally:
        host.stop()
        thread.join()


def span(name: str) -> Any:
    """Return the one finished span of a name, without its prefix."""

    def found() -> list[Any]:
        return [each for each in KEPT.get_finished_spans() if each.name.endswith(name)]

    until(lambda: bool(found()))
    (one,) = found()
    return one


def test_a_call_is_a_child_of_its_callers_span(stub: Any) -> None:
    stub.Predict(pb.PredictOptions(Prompt="hi"), metadata=CALL)
    made = span("/Predict")
    assert made.kind is SpanKind.SERVER
    assert format_trace_id(made.context.trace_id) == TRACE
    assert format_span_id(made.parent.span_id) == PARENT
    assert dict(made.attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": "backend.Backend/Predict",
        "rpc.response.status_code": "OK",
        "grpcerrors.model": "m",
        "grpcerrors.request_id": "r-1",
    }
    assert span("/LoadModel").attributes["grpcerrors.model"] == "m"


def test_a_stream_is_one_span(stub: Any) -> None:
    assert list(stub.PredictStream(pb.PredictOptions(Prompt="a b"), metadata=CALL))
    assert span("/PredictStream").attributes["rpc.response.status_code"] == "OK"


def test_a_refusal_of_the_guard_has_a_span(stub: Any) -> None:
    key = (("x-model-id", "another"), ("x-generation", "7"))
    with pytest.raises(grpc.RpcError):
        stub.Predict(pb.PredictOptions(ModelIdentity="another"), metadata=key)
    made = span("/Predict")
    assert made.attributes["rpc.response.status_code"] in ("FAILED_PRECONDITION", "NOT_FOUND")
    assert made.attributes["grpcerrors.generation"] == 7
    assert made.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("stub", [Sync], indirect=True)
def test_a_span_of_the_model_is_a_child_of_the_calls(stub: Any) -> None:
    with contextlib.suppress(grpc.RpcError):
        stub.Predict(pb.PredictOptions(Prompt="bad"), metadata=CALL)
    made = span("/Predict")
    assert made.attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert span("inference").parent.span_id == made.context.span_id
