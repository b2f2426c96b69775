"""Real backends behind Envoy, as docs/proxies.md configures it: no request is lost or run twice."""

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
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from tests.backends.support.hosting import PATIENCE, HostProcess, host, until
from tests.interop.support.proxies import proxying

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[HostProcess]]:
    with host("echo") as left, host("echo") as right:
        yield [left, right]


@pytest.fixture(scope="module")
def stub(hosts: list[HostProcess]) -> Iterator[Any]:
    with (
        proxying("envoy", hosts[0].address, hosts[1].address) as target,
        grpc.insecure_channel(target) as channel,
    ):
        yield BackendStub(channel)


def predict(stub: Any, name: str) -> None:
    stub.Predict(pb.PredictOptions(Prompt="hi", CorrelationId=name), timeout=PATIENCE)


def predict_stream(stub: Any, name: str) -> None:
    request = pb.PredictOptions(Prompt="three little words", CorrelationId=name)
    assert len(list(stub.PredictStream(request, timeout=PATIENCE))) == 3


def live(stub: Any, name: str) -> None:
    config = pb.TranscriptLiveConfig(sample_rate=16_000, params={"request_id": name})
    audio = pb.TranscriptLiveRequest(audio=pb.TranscriptLiveAudio(pcm=[0.0] * 80))
    messages = [pb.TranscriptLiveRequest(config=config), audio, audio]
    *_, last = stub.AudioTranscriptionLive(iter(messages), timeout=PATIENCE)
    assert last.final_result.text == "160 samples"


CALLS = (predict, predict_stream, live)


def call_all(stub: Any, names: list[str]) -> list[grpc.RpcError]:
    """Make a call for each name, sixteen at a time; return the errors."""

    def call(number: int) -> grpc.RpcError | None:
        try:
            CALLS[number % len(CALLS)](stub, names[number])
        except grpc.RpcError as error:
            return error
        return None

    with ThreadPoolExecutor(16) as pool:
        return [error for error in pool.map(call, range(len(names))) if error]


def is_loading(host: HostProcess) -> bool:
    with pytest.raises(grpc.RpcError) as caught:
        predict(host.stub, "not executed")
    return is_model_loading(caught.value)


def executed(ledger: Path) -> Counter[str]:
    """Return how often each call has been executed, by either backend."""
    lines = ledger.read_text(encoding="utf-8").splitlines()
    return Counter(json.loads(line)["request"] for line in lines)


@pytest.mark.parametrize("meanwhile", ["empty", "loading"])
def test_every_refusal_is_healed(
    hosts: list[HostProcess], stub: Any, tmp_path: Path, meanwhile: str
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
        assert call_all(stub, names) == []
        if meanwhile == "loading":
            load.result()
    assert executed(ledger) == Counter(names)


def test_evictions_lose_no_request_and_failures_are_not_repeated(
    hosts: list[HostProcess], stub: Any, tmp_path: Path
) -> None:
    left, right = hosts
    ledger = tmp_path / "ledger"
    names = [f"evicted {number}" for number in range(900)]
    options = (f"ledger:{ledger}", "fail_every:7")
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
            errors = call_all(stub, names)
        finally:
            done.set()
        assert evicting.result() > 1
    assert executed(ledger) == Counter(names)
    assert len(errors) > len(names) / 20
    assert {error.code() for error in errors} == {grpc.StatusCode.INTERNAL}
    assert {classify(error).condition for error in errors} == {None}
