"""The host as a real process, with a sync and with an aio backend."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from grpcerrors import classify, is_model_not_loaded
from grpcerrors_protocol import backend_pb2 as pb

from .support.calls import CALLS
from .support.hosting import BUSY, PATIENCE, READY, UNINITIALIZED, HostProcess, host, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SURFACES = ["tests.backends.support.samples:Sync", "tests.backends.support.samples:Aio"]
MIB = 1 << 20


@pytest.fixture(scope="module", params=SURFACES, ids=["sync", "aio"])
def running(request: pytest.FixtureRequest) -> Iterator[HostProcess]:
    with host(request.param, "--slots", 3) as process:
        yield process


@pytest.fixture
def sample(running: HostProcess) -> Iterator[HostProcess]:
    running.free()
    yield running
    running.free()
    assert running.process.poll() is None


def predict(process: HostProcess, prompt: str = "hi", **options: Any) -> str:
    request = pb.PredictOptions(Prompt=prompt)
    options.setdefault("timeout", PATIENCE)
    answer: bytes = process.stub.Predict(request, **options).message
    return answer.decode()


def named(model: str) -> list[tuple[str, str]]:
    return [("x-model-id", model)]


def stream(process: HostProcess, prompt: str) -> Any:
    return process.stub.PredictStream(pb.PredictOptions(Prompt=prompt), timeout=PATIENCE)


def test_health_and_reflection(sample: HostProcess) -> None:
    assert sample.stub.Health(pb.HealthMessage()).message == b"OK"
    health = health_pb2_grpc.HealthStub(sample.channel)
    for service in ("", "backend.Backend"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    asks = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="backend.Backend"),
    ]
    stub = reflection_pb2_grpc.ServerReflectionStub(sample.channel)
    services, file = stub.ServerReflectionInfo(iter(asks))
    names = {service.name for service in services.list_services_response.service}
    assert names == {
        "backend.Backend",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    (written,) = file.file_descriptor_response.file_descriptor_proto
    (described,) = FileDescriptorProto.FromString(written).service
    assert len(described.method) == 52


def test_what_is_not_implemented_stays_so(sample: HostProcess) -> None:
    for _ in ("not loaded", "loaded"):
        with pytest.raises(grpc.RpcError) as caught:
            sample.stub.TTS(pb.TTSRequest(text="hi"), timeout=PATIENCE)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        sample.load()


def test_raw_bytes_of_another_implementation_are_understood(sample: HostProcess) -> None:
    def call(rpc: str, wire: bytes) -> bytes:
        answer: bytes = sample.channel.unary_unary(f"/backend.Backend/{rpc}")(wire)
        return answer

    assert call("Health", b"") == b"\x0a\x02OK"
    assert call("LoadModel", b"\x0a\x01m").endswith(b"\x10\x01")
    assert call("Predict", b"\x0a\x02hi\xb2\x03\x01m") == b"\x0a\x02hi"


def test_a_call_gets_the_model_that_it_names(sample: HostProcess) -> None:
    for model in "abc":
        sample.load(model, f"prefix:{model}=")
    assert predict(sample, "1", metadata=named("a")) == "a=1"
    assert predict(sample, "1") == "c=1", "the one loaded last"
    request = pb.PredictOptions(Prompt="1", ModelIdentity="b")
    assert sample.stub.Predict(request).message == b"b=1"
    with pytest.raises(grpc.RpcError, match="model identity mismatch") as caught:
        sample.stub.Predict(request, metadata=named("a"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_free_of_one_model_and_of_a_generation(sample: HostProcess) -> None:
    sample.load("a", metadata=[("x-generation", "4")])
    sample.load("b")
    assert "generation 3" in sample.free("a", "3").message
    assert sample.status("a").state == READY
    assert "'a'" in sample.free("a", "4").message
    assert sample.status("a").state == UNINITIALIZED
    assert sample.status("b").state == READY
    assert sample.status().state == READY


def test_the_inventory_is_told(sample: HostProcess) -> None:
    first = sample.load("told", metadata=[("x-generation", "1")])
    again = sample.load("told", metadata=[("x-generation", "1")])
    assert again == first
    _, call = sample.stub.Free.with_call(pb.HealthMessage())
    freed = dict(call.trailing_metadata())
    assert freed["x-boot-id"] == first["x-boot-id"]
    assert int(freed["x-inventory-version"]) == int(first["x-inventory-version"]) + 1


def test_status_tells_busy_truly(sample: HostProcess) -> None:
    sample.load("a", "answer_seconds:0.01")
    sample.load("b")
    assert sample.status("a").state == READY
    answers = sample.stub.PredictStream(
        pb.PredictOptions(Prompt="endless"), metadata=named("a"), timeout=PATIENCE
    )
    next(answers)
    assert (sample.status("a").state, sample.status("b").state) == (BUSY, READY)
    assert sample.status().state == BUSY
    answers.cancel()
    until(lambda: sample.status("a").state == READY)
    assert sample.status().memory.total > MIB


def test_a_call_keeps_its_model_and_free_waits_for_it(sample: HostProcess) -> None:
    sample.load("a", "answer_seconds:0.01")
    answers = stream(sample, "endless")
    next(answers)
    with ThreadPoolExecutor() as pool:
        free = pool.submit(sample.free, "a")
        until(lambda: sample.status("a").state == UNINITIALIZED)
        for _ in range(5):
            assert next(answers).message == b"endless"
        with pytest.raises(grpc.RpcError) as caught:
            predict(sample, metadata=named("a"))
        assert is_model_not_loaded(caught.value)
        assert not free.done()
        answers.cancel()
        assert free.result(PATIENCE).success


def test_loads_at_the_same_time_are_one_load(sample: HostProcess) -> None:
    with ThreadPoolExecutor() as pool:
        loads = [pool.submit(sample.load, "a", "load_seconds:0.3") for _ in range(5)]
        assert len({load.result()["x-inventory-version"] for load in loads}) == 1


@pytest.mark.parametrize(
    ("prompt", "code", "text"),
    [
        ("bad", grpc.StatusCode.INVALID_ARGUMENT, "sample: send a number"),
        ("missing", grpc.StatusCode.NOT_FOUND, "sample: no voice named x"),
        ("large", grpc.StatusCode.RESOURCE_EXHAUSTED, "sample: at most 10 seconds"),
        ("crash", grpc.StatusCode.INTERNAL, "failed with ZeroDivisionError"),
        ("gone", grpc.StatusCode.FAILED_PRECONDITION, "sample: model not loaded"),
        ("abort", grpc.StatusCode.DATA_LOSS, "by hand"),
    ],
)
@pytest.mark.parametrize("call", [predict, lambda *args: list(stream(*args))], ids=["one", "many"])
def test_failures_have_a_code_and_a_text(
    sample: HostProcess, call: Callable[..., Any], prompt: str, code: Any, text: str
) -> None:
    sample.load()
    with pytest.raises(grpc.RpcError) as caught:
        call(sample, prompt)
    assert caught.value.code() is code
    assert text in caught.value.details()
    assert "Traceback" not in caught.value.details()
    assert "secret" not in caught.value.details()
    assert ("secret of the house" in sample.log()) or prompt != "crash"
    assert sample.status().state == READY, "the model stays"


def test_a_failed_load_says_what_to_do(sample: HostProcess) -> None:
    def load(*options: str) -> Any:
        return sample.stub.LoadModel(pb.ModelOptions(Model="m", Options=options))

    misspelt = load("prefix")
    assert not misspelt.success
    assert "key:value" in misspelt.message
    broken = load("fail_load:x")
    assert not broken.success
    assert broken.message.startswith("sample could not load 'm': OSError: no such file")


BAD_GENERATIONS = ["new", "-1", "1.5", "9" * 25, str(2**63), "9" * 4000]


@pytest.mark.parametrize("text", BAD_GENERATIONS, ids=lambda text: text[:20])
def test_a_bad_generation_is_refused(sample: HostProcess, text: str) -> None:
    sample.load("a")
    calls: list[Callable[..., Any]] = [
        lambda **o: sample.stub.LoadModel(pb.ModelOptions(Model="m"), **o),
        lambda **o: sample.stub.Free(pb.HealthMessage(), **o),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call(metadata=[("x-generation", text)], timeout=PATIENCE)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "a decimal number from 0 to 9223372036854775807" in error.details()
        assert len(error.details()) < 200
    assert sample.status("a").state == READY
    assert sample.status("m").state == UNINITIALIZED
    sample.load("m", metadata=[("x-generation", str(2**63 - 1))])


def test_a_load_that_a_newer_one_has_overtaken_is_refused(sample: HostProcess) -> None:
    sample.load("fenced", metadata=[("x-generation", "7")])
    sample.load("fenced", metadata=[("x-generation", "7")])
    late = pb.ModelOptions(Model="fenced", Options=["prefix:late"])
    for _ in ("held", "freed"):
        with pytest.raises(grpc.RpcError) as caught:
            sample.stub.LoadModel(late, metadata=[("x-generation", "6")], timeout=PATIENCE)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "load 6 of 'fenced' arrived after load 7" in error.details()
        assert classify(error).condition is None, "it says nothing about a model that is gone"
        sample.free()
    assert sample.status().state == UNINITIALIZED


def test_a_model_has_a_key_and_a_name_of_its_own(sample: HostProcess) -> None:
    request = pb.ModelOptions(Model="x.gguf", Options=["prefix:small="])
    result = sample.stub.LoadModel(request, metadata=named("small"), timeout=PATIENCE)
    assert (result.success, result.message) == (True, "'small' is loaded")
    sample.load("other")
    assert predict(sample, "1", metadata=named("small")) == "small=1"
    by_identity = pb.PredictOptions(Prompt="1", ModelIdentity="x.gguf")
    assert sample.stub.Predict(by_identity).message == b"small=1"
    assert sample.stub.Predict(by_identity, metadata=named("small")).message == b"small=1"
    with pytest.raises(grpc.RpcError, match="model identity mismatch"):
        sample.stub.Predict(by_identity, metadata=named("other"))
    assert sample.status("small").state == READY
    assert "'small'" in sample.free("small").message
    with pytest.raises(grpc.RpcError) as caught:
        sample.stub.Predict(by_identity)
    assert is_model_not_loaded(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", SURFACES)
def test_loads_that_wait_leave_the_model_and_the_threads_alone(name: str) -> None:
    with host(name) as process, ThreadPoolExecutor(100) as pool:
        process.load("m", "answer_seconds:0.01")
        answers = stream(process, "endless")
        next(answers)

        def load(number: int) -> str:
            request = pb.ModelOptions(Model=f"other-{number}")
            with pytest.raises(grpc.RpcError) as caught:
                process.stub.LoadModel(request, timeout=4)
            error: Any = caught.value
            refused = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            return str(error.details() if refused else error.code().name)

        loads = [pool.submit(load, number) for number in range(100)]
        until(lambda: any(load.done() for load in loads))
        assert process.stub.Health(pb.HealthMessage(), timeout=PATIENCE).message == b"OK"
        assert process.free("nothing").success
        for each in loads:
            text = each.result(PATIENCE)
            assert "64 loads are" in text or "every slot is in use" in text or "DEADLINE" in text
        assert any("64 loads are already running" in each.result() for each in loads)
        until(lambda: process.status("m").state == BUSY)
        next(answers)
        answers.cancel()
        process.load("next")
        assert "Traceback" not in process.log()


@pytest.mark.slow
def test_messages_up_to_50_mib(sample: HostProcess) -> None:
    sample.load()
    assert len(predict(sample, "x" * (40 * MIB))) == 40 * MIB
    with pytest.raises(grpc.RpcError) as caught:
        predict(sample, "x" * (60 * MIB))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sample.status().state == READY


@pytest.mark.slow
@pytest.mark.parametrize("name", SURFACES)
def test_a_stop_finishes_what_runs_and_refuses_what_is_new(name: str) -> None:
    with host(name) as process, ThreadPoolExecutor() as pool:
        process.load("m", "answer_seconds:1")
        running = pool.submit(predict, process, "slow")
        until(lambda: process.status().state == BUSY)
        process.process.terminate()
        with pytest.raises(grpc.RpcError) as caught:
            until(lambda: process.stub.Health(pb.HealthMessage()) is None)
        # gRPC itself cancels a call that arrives at the moment of the stop.
        refusals = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert caught.value.code() in refusals
        assert running.result() == "slow"
        assert process.process.wait(PATIENCE) == 0
        assert "Traceback" not in process.log()


@pytest.mark.slow
@pytest.mark.parametrize("name", SURFACES)
def test_a_stop_does_not_wait_longer_than_the_grace_period(name: str) -> None:
    with host(name, "--grace", 0.1) as process:
        process.load("m", "answer_seconds:0.01")
        answers = stream(process, "endless")
        next(answers)
        assert process.terminate() == 0
        with pytest.raises(grpc.RpcError):
            list(answers)


@pytest.mark.slow
@pytest.mark.parametrize("name", SURFACES)
def test_a_second_signal_ends_the_grace_period(name: str) -> None:
    with host(name, "--grace", 3600) as process:
        process.load("m", "answer_seconds:0.01")
        answers = stream(process, "endless")
        next(answers)
        process.process.terminate()
        until(lambda: '"stopping"' in process.log())
        process.process.terminate()
        assert process.process.wait(PATIENCE) == 0
        with pytest.raises(grpc.RpcError):
            list(answers)


@pytest.mark.slow
def test_the_log_is_json_and_quiet() -> None:
    with host("echo") as process:
        process.load()
        for call in CALLS.values():
            call(process.stub, timeout=PATIENCE)
        process.free()
        process.terminate()
        events = [json.loads(line)["event"] for line in process.log().splitlines()]
        assert events == ["unloaded", "stopping"]
