"""Real backends behind Envoy, configured as docs/how-to/proxies.md says: no request is lost."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import classify, is_model_loading
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import inference_pb2 as v2
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_protocol.inference_pb2_grpc import GRPCInferenceServiceStub
from tests.backends.support.hosting import PATIENCE, HostProcess, host, until
from tests.backends.support.kserve import texts
from tests.interop.support.proxies import proxying

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[HostProcess]]:
    files = ("--files", tmp_path_factory.getbasetemp())
    with host("echo", *files) as left, host("echo", *files) as right:
        yield [left, right]


class Client:
    """The stubs of both protocols, and a call of each shape by its name in the ledger."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._backend: Any = BackendStub(channel)
        self._inference: Any = GRPCInferenceServiceStub(channel)

    def predict(self, name: str) -> None:
        self._backend.Predict(pb.PredictOptions(Prompt="hi", CorrelationId=name), timeout=PATIENCE)

    def stream(self, name: str) -> None:
        request = pb.PredictOptions(Prompt="three little words", CorrelationId=name)
        assert len(list(self._backend.PredictStream(request, timeout=PATIENCE))) == 3

    def converse(self, name: str) -> None:
        config = pb.TranscriptLiveConfig(sample_rate=16_000, params={"request_id": name})
        audio = pb.TranscriptLiveRequest(audio=pb.TranscriptLiveAudio(pcm=[0.0] * 80))
        messages = [pb.TranscriptLiveRequest(config=config), audio, audio]
        *_, last = self._backend.AudioTranscriptionLive(iter(messages), timeout=PATIENCE)
        assert last.final_result.text == "160 samples"

    def infer(self, name: str) -> None:
        request = v2.ModelInferRequest(model_name="m", inputs=[texts(name.encode())])
        self._inference.ModelInfer(request, timeout=PATIENCE)


CALLS = (Client.predict, Client.stream, Client.converse, Client.infer)


@pytest.fixture(scope="module")
def client(hosts: list[HostProcess]) -> Iterator[Client]:
    with (
        proxying("envoy", hosts[0].address, hosts[1].address) as target,
        grpc.insecure_channel(target) as channel,
    ):
        yield Client(channel)


def call_all(client: Client, names: list[str]) -> list[grpc.RpcError]:
    """Make a call for each name, sixteen at a time; return the errors."""

    def call(number: int) -> grpc.RpcError | None:
        try:
            CALLS[number % len(CALLS)](client, names[number])
        except grpc.RpcError as error:
            return error
        return None

    with ThreadPoolExecutor(16) as pool:
        return [error for error in pool.map(call, range(len(names))) if error]


def is_loading(host: HostProcess) -> bool:
    with pytest.raises(grpc.RpcError) as caught:
        Client(host.channel).predict("not executed")
    return is_model_loading(caught.value)


def executed(ledger: Path) -> Counter[str]:
    """Return how often each call has been executed, by either backend."""
    lines = ledger.read_text(encoding="utf-8").splitlines()
    return Counter(json.loads(line)["request"] for line in lines)


@pytest.mark.parametrize("meanwhile", ["empty", "loading"])
def test_every_refusal_is_healed(
    hosts: list[HostProcess], client: Client, tmp_path: Path, meanwhile: str
) -> None:
    left, right = hosts
    ledger = tmp_path / "ledger"
    names = [f"{meanwhile} {number}" for number in range(300)]
    right.load("m", f"ledger:{ledger}")
    left.free()
    with ThreadPoolExecutor(1) as pool:
        if meanwhile == "loading":
            load = pool.submit(left.load, "m", "load_seconds:3", f"ledger:{ledger}")
            until(lambda: is_loading(left))
        assert call_all(client, names) == []
        if meanwhile == "loading":
            load.result()
    assert executed(ledger) == Counter(names)


def test_evictions_lose_no_request_and_failures_are_not_repeated(
    hosts: list[HostProcess], client: Client, tmp_path: Path
) -> None:
    left, right = hosts
    ledger = tmp_path / "ledger"
    names = [f"evicted {number}" for number in range(900)]
    options = (f"ledger:{ledger}", "fail_every:7")
    left.free()  # which the test before may have loaded, with another ledger
    right.load("m", *options)
    done = threading.Event()

    def evict() -> int:
        count = 0
        while not done.is_set():
            left.load("m", *options)
            left.free()
            count += 1
        return count

    with ThreadPoolExecutor(1) as pool:
        evicting = pool.submit(evict)
        try:
            errors = call_all(client, names)
        finally:
            done.set()
        assert evicting.result() > 1
    assert executed(ledger) == Counter(names)
    assert len(errors) > len(names) / 20
    for error in errors:
        # A handler that fails when its model has just been unloaded says so, and that it had begun.
        verdict = classify(error)
        assert error.code() is grpc.StatusCode.INTERNAL or verdict.started
        assert not verdict.unexecuted
