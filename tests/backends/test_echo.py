"""The echo backend and its load options."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors_protocol import backend_pb2 as pb

from .support.hosting import PATIENCE, HostProcess, host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = pb.TranscriptLiveRequest(config=pb.TranscriptLiveConfig(params={"request_id": "r4"}))
AUDIO = pb.TranscriptLiveRequest(audio=pb.TranscriptLiveAudio(pcm=[0.0] * 160))


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with host("echo", "--files", tmp_path_factory.getbasetemp()) as process:
        yield process


def ask(prompt: str, request_id: str = "") -> pb.PredictOptions:
    return pb.PredictOptions(Prompt=prompt, CorrelationId=request_id)


def live(echo: HostProcess, *requests: pb.TranscriptLiveRequest) -> list[Any]:
    return list(echo.stub.AudioTranscriptionLive(iter(requests), timeout=PATIENCE))


@pytest.mark.parametrize("prompt", ["", "hi", " two  words\n", "日本 語"])
def test_it_says_back_what_it_hears(echo: HostProcess, prompt: str) -> None:
    echo.load("m", "prefix:>>")
    said = f">>{prompt}".encode()
    assert echo.stub.Predict(ask(prompt)).message == said
    pieces = [reply.message for reply in echo.stub.PredictStream(ask(prompt))]
    assert b"".join(pieces) == said
    assert len(pieces) == max(1, len(said.split()))


def test_equal_texts_have_equal_vectors(echo: HostProcess) -> None:
    echo.load("m")
    one, same, other = (echo.stub.Embedding(ask(text)) for text in ("a", "a", "b"))
    assert one == same != other
    assert len(one.embeddings) == one.dim == 8
    assert one.layout == pb.EMBEDDING_LAYOUT_FINAL


def test_it_counts_the_samples_of_a_live_stream(echo: HostProcess) -> None:
    echo.load("m")
    ready, first, second, last = live(echo, CONFIG, AUDIO, AUDIO)
    assert ready.ready
    assert (first.delta, second.delta) == ("160 ", "160 ")
    assert last.final_result.text == "320 samples"


@pytest.mark.parametrize("requests", [[], [AUDIO], [CONFIG, CONFIG]])
def test_a_live_stream_out_of_order_is_refused(echo: HostProcess, requests: Any) -> None:
    echo.load("m")
    with pytest.raises(grpc.RpcError) as caught:
        live(echo, *requests)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "config" in caught.value.details()


def test_every_nth_call_fails(echo: HostProcess) -> None:
    echo.load("m", "fail_every:3")
    calls = [echo.stub.Predict.future(ask("hi")) for _ in range(6)]
    codes = [call.code() for call in calls]
    assert codes.count(grpc.StatusCode.OK) == 4
    assert codes.count(grpc.StatusCode.INTERNAL) == 2


def test_what_it_executes_is_on_record_before_it_is_answered(
    echo: HostProcess, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"

    def entries() -> list[tuple[str, str]]:
        lines = [json.loads(line) for line in ledger.read_text().splitlines()]
        assert {(line["model"], line["pid"]) for line in lines} <= {("m", echo.process.pid)}
        return [(line["rpc"], line["request"]) for line in lines]

    echo.load("m", f"ledger:{ledger}")
    assert entries() == []
    echo.stub.Predict(ask("hi", "r1"))
    assert entries() == [("Predict", "r1")]
    list(echo.stub.PredictStream(ask("hi", "r2")))
    echo.stub.Embedding(ask("r3 is its prompt"))
    live(echo, CONFIG)
    assert entries()[1:] == [
        ("PredictStream", "r2"),
        ("Embedding", "r3 is its prompt"),
        ("AudioTranscriptionLive", "r4"),
    ]
    echo.free()
    with pytest.raises(grpc.RpcError):
        echo.stub.Predict(ask("hi", "refused"))
    assert len(entries()) == 4


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("fail_load:out of memory", "out of memory"),
        ("ledger:/no/such/folder/ledger", "no file '/no/such/folder/ledger'"),
        ("load_seconds:soon", "not a number"),
        ("load_seconds:inf", "not a number from 0 to 86400"),
        ("ballast_mib:2048", "not a number from 0 to 1024"),
        ("colour:red", "unknown load options colour"),
    ],
)
def test_a_load_that_fails_says_why(echo: HostProcess, option: str, words: str) -> None:
    result = echo.stub.LoadModel(pb.ModelOptions(Model="m", Options=[option]))
    assert not result.success
    assert words in result.message
