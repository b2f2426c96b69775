"""The Open Inference Protocol: the same models on the same port as the backend protocol."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from grpcerrors import MODEL_LOADING, MODEL_MISMATCH, Evidence, classify
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import inference_pb2 as v2

from .support.calls import fails_typed
from .support.hosting import PATIENCE, HostProcess, host, until
from .support.kserve import SCALE, SURFACES, Calls, texts

if TYPE_CHECKING:
    from collections.abc import Iterator

INVALID = grpc.StatusCode.INVALID_ARGUMENT
SERVICE = "inference.GRPCInferenceService"


@pytest.fixture(scope="module", params=SURFACES, ids=["sync", "aio"])
def running(request: pytest.FixtureRequest) -> Iterator[HostProcess]:
    with host(request.param, "--slots", 2) as process:
        yield process


@pytest.fixture
def sample(running: HostProcess) -> Iterator[HostProcess]:
    running.free()
    yield running
    assert running.process.poll() is None


def test_it_is_served_next_to_the_backend_protocol(sample: HostProcess) -> None:
    health = health_pb2_grpc.HealthStub(sample.channel)
    answer = health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=PATIENCE)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    asks = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    stub = reflection_pb2_grpc.ServerReflectionStub(sample.channel)
    services, file = stub.ServerReflectionInfo(iter(asks))
    assert SERVICE in {each.name for each in services.list_services_response.service}
    assert len(file.file_descriptor_response.file_descriptor_proto) == 1


def test_a_model_without_tensors_is_not_served_over_it() -> None:
    with host("tests.backends.support.samples:Sync") as process:
        with pytest.raises(grpc.RpcError) as caught:
            Calls(process).server_ready()
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_state_is_that_of_the_slots(sample: HostProcess) -> None:
    calls = Calls(sample)
    live = calls.stub.ServerLive(v2.ServerLiveRequest(), timeout=PATIENCE).live
    assert (live, calls.server_ready(), calls.ready("a"), calls.index()) == (True, False, False, [])
    assert calls.load("a").isLoaded
    sample.load("x.gguf", metadata=[("x-model-id", "b")])  # over the other protocol
    assert calls.server_ready()
    assert [calls.ready(name) for name in ("a", "b", "x.gguf", "c")] == [True, True, True, False]
    assert sorted(calls.index()) == [("a", "READY"), ("b", "READY")]
    assert calls.unload("x.gguf").isUnloaded
    assert calls.index() == [("a", "READY")]
    sample.free("a")  # over the other protocol
    assert (calls.server_ready(), calls.ready("a"), calls.index()) == (False, False, [])


def test_the_server_and_its_models_are_described(sample: HostProcess) -> None:
    calls = Calls(sample)
    server = calls.stub.ServerMetadata(v2.ServerMetadataRequest(), timeout=PATIENCE)
    assert (server.name, list(server.extensions)) == ("tensors", ["model_repository"])
    fails_typed(partial(calls.metadata, "m"), model="m")
    calls.load("m")
    described = calls.metadata("m")
    assert (described.name, list(described.versions)) == ("m", ["1"])
    assert [(each.name, each.datatype, list(each.shape)) for each in described.inputs] == [
        ("text", "BYTES", [-1]),
        ("scale", "FP32", [2]),
    ]
    assert [each.name for each in described.outputs] == ["said", "size"]


def test_a_call_gets_the_model_that_it_names(sample: HostProcess) -> None:
    calls = Calls(sample)
    for name in "ab":
        metadata = [("x-model-id", name)]
        sample.load(f"{name}.gguf", f"suffix:{name}", metadata=metadata)

    def said(model: str, **named: Any) -> bytes:
        answer = calls.infer(model, texts(b"1"), SCALE, **named)
        said: bytes = answer.outputs[0].contents.bytes_contents[0]
        return said

    assert [said(name) for name in ("a", "a.gguf", "b", "b.gguf", "")] == [
        *(b"1a", b"1a", b"1b", b"1b", b"1b"),
    ]
    assert said("a.gguf", metadata=[("x-model-id", "a")]) == b"1a"
    with pytest.raises(grpc.RpcError) as caught:
        said("a", metadata=[("x-model-id", "b")])
    assert classify(caught.value).condition is MODEL_MISMATCH
    fails_typed(partial(said, "c"), model="c")
    fails_typed(partial(said, "a", metadata=[("x-model-id", "c")]), model="c")


def test_a_model_that_is_gone_is_typed_however_it_went(sample: HostProcess) -> None:
    calls = Calls(sample)
    infer = partial(calls.infer, "m", texts(b"a"), SCALE)
    fails_typed(infer, model="m")
    for go in (sample.free, partial(calls.unload, "m"), lambda: [calls.load(n) for n in "xy"]):
        calls.load("m")
        assert infer().outputs
        go()
        fails_typed(infer, model="m")


def test_options_and_failures_of_a_load(sample: HostProcess) -> None:
    calls = Calls(sample)
    calls.load("m", suffix="?", number=3, flag=True, file=b"x")
    answer = calls.infer("m", texts(b"a"), SCALE)
    assert answer.outputs[0].contents.bytes_contents[0] == b"A?"
    for options, words in (
        ({"fail": "no such file"}, "no such file"),
        (
            {"sufix": "?"},
            "unknown load options sufix; known options: suffix",
        ),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            calls.load("other", **options)
        assert caught.value.code() is INVALID
        assert words in caught.value.details()
        assert classify(caught.value).condition is None
    assert not calls.ready("other")


@pytest.mark.parametrize("by", ["RepositoryModelLoad", "LoadModel"])
def test_a_call_during_a_load_learns_that_it_runs(sample: HostProcess, by: str) -> None:
    """Over each protocol, whichever one the load came by."""
    calls = Calls(sample)
    calls.load("other")
    gate = sample.stderr.with_name("gate")
    options = [f"gate:{gate}"]
    key = [("x-model-id", "a")]
    if by == "LoadModel":
        request = pb.ModelOptions(Model="a.gguf", Options=options)
        load = sample.stub.LoadModel.future(request, metadata=key, timeout=PATIENCE)
    else:
        parameters = {"gate": v2.ModelRepositoryParameter(string_param=str(gate))}
        asked = v2.RepositoryModelLoadRequest(model_name="a.gguf", parameters=parameters)
        load = calls.stub.RepositoryModelLoad.future(asked, metadata=key, timeout=PATIENCE)
    until(gate.exists)
    predict = partial(sample.stub.Predict, pb.PredictOptions(Prompt="hi"), timeout=PATIENCE)
    for call in (
        partial(calls.infer, "a", texts(b"1"), SCALE),
        partial(calls.infer, "a.gguf", texts(b"1"), SCALE),
        partial(calls.infer, "", texts(b"1"), SCALE, metadata=key),
        partial(predict, metadata=key),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        verdict = classify(caught.value)
        assert (verdict.condition, verdict.evidence) == (MODEL_LOADING, Evidence.DETAILS)
        assert verdict.retry_after == 1
    assert not calls.ready("a")
    assert calls.infer("other", texts(b"1"), SCALE).outputs, "other models are served meanwhile"
    gate.unlink()
    load.result()
    assert calls.infer("a", texts(b"1"), SCALE).outputs


def test_a_name_is_needed_to_load_and_to_unload(sample: HostProcess) -> None:
    calls = Calls(sample)
    calls.load("m")
    for call in (calls.load, calls.unload):
        with pytest.raises(grpc.RpcError, match="model_name is empty") as caught:
            call("")
        assert caught.value.code() is INVALID
    assert calls.ready("m"), "an empty name must not unload all models"


def test_kserves_own_client_names_the_model_elsewhere(sample: HostProcess) -> None:
    """It has `model_name` as number 1."""
    calls = Calls(sample)
    load = sample.channel.unary_unary(f"/{SERVICE}/RepositoryModelLoad")
    assert load(b"\x0a\x01m", timeout=PATIENCE) == b"\x0a\x01m\x10\x01"
    assert calls.ready("m")
    unload = sample.channel.unary_unary(f"/{SERVICE}/RepositoryModelUnload")
    assert unload(b"\x0a\x01m", timeout=PATIENCE) == b"\x0a\x01m\x10\x01"
    assert not calls.ready("m")


def test_generations_are_fenced_as_with_loadmodel(sample: HostProcess) -> None:
    calls = Calls(sample)
    calls.load("g", metadata=[("x-generation", "7")])
    with pytest.raises(grpc.RpcError, match="which replaces it"):
        calls.load("g", metadata=[("x-generation", "6")])
    calls.unload("g", metadata=[("x-generation", "6")])
    assert calls.ready("g"), "another generation is held"
    request = v2.RepositoryModelUnloadRequest(model_name="g")
    _, call = calls.stub.RepositoryModelUnload.with_call(
        request, metadata=[("x-generation", "7")], timeout=PATIENCE
    )
    assert {"x-boot-id", "x-inventory-version"} <= dict(call.trailing_metadata()).keys()
    assert not calls.ready("g")


@pytest.mark.slow
def test_an_idle_model_is_unloaded() -> None:
    with host(SURFACES[0], "--idle-ttl", 0.2) as process:
        calls = Calls(process)
        calls.load("m")
        until(lambda: not calls.ready("m"))
        fails_typed(partial(calls.infer, "m", texts(b"a"), SCALE), model="m")
