"""The chat backend: answers, streams of tokens, cancellation."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors_backends.model import LoadError
from grpcerrors_protocol import backend_pb2 as pb

from .support.hosting import BUSY, PATIENCE, READY, HostProcess, host, until
from .support.models import (
    ASSETS,
    INVALID,
    LARGE,
    find_or_skip,
    load,
    load_refused,
    loaded,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
SKY = [pb.Message(role="user", content="Why is the sky blue?")]
LONG = pb.PredictOptions(Prompt="Once upon a time", Tokens=1500, IgnoreEOS=True)


@pytest.fixture(scope="module")
def chat() -> Iterator[HostProcess]:
    with loaded("chat", arguments=("--files", ASSETS)) as process:
        yield process


def predict(process: HostProcess, **fields: Any) -> Any:
    return process.stub.Predict(pb.PredictOptions(**fields), timeout=PATIENCE)


def stream(process: HostProcess, **fields: Any) -> list[Any]:
    return list(process.stub.PredictStream(pb.PredictOptions(**fields), timeout=PATIENCE))


def test_knows_something(chat: HostProcess) -> None:
    reply = predict(chat, Prompt="The capital of France is", Tokens=3)
    assert b"Paris" in reply.message
    assert (reply.tokens, reply.prompt_tokens) == (3, 5)
    assert reply.timing_prompt_processing > 0
    assert reply.timing_token_generation > 0


def test_streams_token_by_token(chat: HostProcess) -> None:
    asked = {"Messages": SKY, "UseTokenizerTemplate": True, "Tokens": 24}
    *pieces, last = stream(chat, **asked)
    assert len(pieces) == 24
    assert [piece.tokens for piece in pieces] == list(range(1, 25))
    assert (last.message, last.tokens) == (b"", 24)
    # The template adds tokens to those of the question.
    assert last.prompt_tokens > 20
    whole = b"".join(piece.message for piece in pieces)
    assert whole == predict(chat, **asked).message
    assert b"light" in whole


def test_stops_where_it_is_told(chat: HostProcess) -> None:
    reply = predict(chat, Prompt="One, two, three, four,", Tokens=30, StopPrompts=["seven"])
    assert reply.message.strip() == b"five, six,"


def test_a_grammar_binds_it(chat: HostProcess) -> None:
    asked = {"Prompt": "Is water wet? Answer:", "Tokens": 4, "Grammar": 'root ::= "yes" | "no"'}
    assert predict(chat, **asked).message in (b"yes", b"no")


def test_a_seed_makes_chance_repeat(chat: HostProcess) -> None:
    asked = {"Prompt": "My favourite animal is", "Tokens": 12, "Temperature": 1.2}
    first, again, other = (predict(chat, Seed=s, **asked).message for s in (7, 7, 8))
    assert first == again != other


def test_answers_side_by_side(chat: HostProcess) -> None:
    request = pb.PredictOptions(Prompt="The capital of France is", Tokens=3)
    calls = [chat.stub.Predict.future(request, timeout=PATIENCE) for _ in range(6)]
    assert all(b"Paris" in call.result().message for call in calls)


@pytest.mark.parametrize("rpc", ["Predict", "PredictStream"])
def test_a_caller_that_leaves_frees_the_model(chat: HostProcess, rpc: str) -> None:
    call = (
        chat.stub.PredictStream(LONG) if rpc == "PredictStream" else chat.stub.Predict.future(LONG)
    )
    if rpc == "PredictStream":
        for _ in range(3):
            next(call)
    until(lambda: chat.status().state == BUSY)
    call.cancel()
    until(lambda: chat.status().state == READY)


def test_a_deadline_ends_it(chat: HostProcess) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(chat.stub.PredictStream(LONG, timeout=0.5))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: chat.status().state == READY)


def test_cancelling_stops_within_one_token() -> None:
    backend = find_or_skip("chat")
    from grpcerrors_backends.chat.generation import Generation  # noqa: PLC0415 - an extra
    from grpcerrors_backends.chat.request import body  # noqa: PLC0415 - as above

    try:
        model: Any = backend.load(pb.ModelOptions(Model="m"))
    except LoadError as error:
        pytest.skip(str(error))
    asked, _ = body(LONG, most=2048)
    generated = []

    def counted(asked: object, on_chunk: Any) -> object:
        def count(chunk: dict[str, Any]) -> bool:
            generated.append(chunk)
            stop: bool = on_chunk(chunk)
            return stop

        return model._server.handle_completions(asked, count)

    with Generation(counted, asked) as generation:
        for heard, _ in enumerate(generation, 1):
            if heard == 5:
                # Tokens that were generated before the cancellation do not count.
                before = len(generated)
                generation.cancel()
    # The token being computed, and one that began before the flag was read.
    assert len(generated) <= before + 2
    model.close()


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({}, INVALID, "set Prompt, or Messages with UseTokenizerTemplate"),
        ({"Messages": SKY}, INVALID, "set Prompt, or Messages with UseTokenizerTemplate"),
        ({"Prompt": "x", "Images": ["aGk="]}, INVALID, "text only"),
        ({"Prompt": "x", "Tokens": -1}, INVALID, "expected 0"),
        ({"Prompt": "x", "Tokens": 10**6}, LARGE, "to 2048"),
        ({"Prompt": "x", "Grammar": "root ::= ["}, INVALID, "grammar"),
        ({"Prompt": "word " * 5000}, LARGE, "the context holds 2048"),
        (
            {"Messages": [pb.Message(role="boss", content="x")], "UseTokenizerTemplate": True},
            INVALID,
            "role 'boss' is not one of system, user",
        ),
    ],
    ids=["nothing", "template", "image", "negative", "many", "grammar", "long", "role"],
)
def test_refuses_what_it_cannot_answer(
    chat: HostProcess, fields: dict[str, Any], code: grpc.StatusCode, words: str
) -> None:
    refused(chat, code, words, predict, chat, **fields)
    refused(chat, code, words, stream, chat, **fields)


def test_refuses_to_load_what_is_no_model(chat: HostProcess) -> None:
    load_refused(chat, "is it a GGUF model", ModelFile=str(ASSETS / "speech.wav"))
    load_refused(chat, "no file '/no/such.gguf'", ModelFile="/no/such.gguf")
    load_refused(chat, "known options: parallel", "paralel:3")


def test_what_was_just_loaded_can_be_freed_on_a_busy_machine() -> None:
    """To end llama.cpp's loop before it has begun would block forever."""
    find_or_skip("chat")
    spin = f"import time; end = time.time() + {PATIENCE}\nwhile time.time() < end: pass"
    busy = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(6)]
    try:
        with host("chat") as process:
            for _ in range(10):
                load(process)
                assert process.free().success
    finally:
        for each in busy:
            each.kill()
            each.wait()
