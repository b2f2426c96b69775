"""The trailer by which a guard vouches that its model was there when a handler failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import classify, is_model_not_loaded
from grpcerrors._wire import HELD_KEY, TRAILERS_LIMIT
from grpcerrors.testing import FakeRpcError
from tests.grpcerrors.support.guarded import (
    DONE,
    SHAPES,
    SURFACES,
    Answer,
    Client,
    Gates,
    SyncBackend,
    answer,
    guarded,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# How a handler fails with its model there: the prompt, and the code that the client sees.
FAILURES = {
    "raises": ("raise", "UNKNOWN"),
    "aborts": ("abort", "INVALID_ARGUMENT"),
    "aborts and continues": ("swallow", "INTERNAL"),
    "sets a code": ("code", "INTERNAL"),
    "sets a code and raises": ("code:NOT_FOUND raise", "NOT_FOUND"),
    "says that it is not implemented": ("abort:UNIMPLEMENTED", "UNIMPLEMENTED"),
    "says a code of the contract": ("abort:FAILED_PRECONDITION", "FAILED_PRECONDITION"),
}

# Endings that need nobody to vouch for them.
ENDINGS = {
    "answers": ("", "OK"),
    "answers no": ("false", "OK"),
    "raises a contract error": ("typed", "MODEL_NOT_LOADED"),
    "aborts with a contract error": ("abort-typed", "MODEL_NOT_LOADED"),
}


@pytest.fixture(params=SURFACES, scope="module")
def surface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(surface: str) -> Iterator[Client]:
    with guarded(surface) as client:
        yield client


def met(seen: Answer) -> FakeRpcError:
    trailers = tuple(seen.trailers.items())
    return FakeRpcError(grpc.StatusCode[seen.code], seen.text, trailers)


@pytest.mark.parametrize("does", FAILURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_failure_with_the_model_there_is_vouched_for(
    client: Client, shape: str, does: str
) -> None:
    prompt, code = FAILURES[does]
    client.load()
    for before in ("", "yield "):
        seen = client.call(shape, f"trailer {before}{prompt}", identity="m")
        assert (seen.code, seen.trailers) == (code, {"kept": "yes", HELD_KEY: "m"})
        assert not is_model_not_loaded(met(seen))


@pytest.mark.parametrize("does", ENDINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_no_failure_or_typed_is_not(client: Client, shape: str, does: str) -> None:
    prompt, verdict = ENDINGS[does]
    client.load()
    seen = client.call(shape, f"trailer {prompt}", identity="m")
    assert (seen.verdict, seen.trailers.get(HELD_KEY)) == (verdict, None)


def test_neither_is_a_refusal(client: Client) -> None:
    assert HELD_KEY not in client.call("Predict", identity="m").trailers
    client.load()
    assert HELD_KEY not in client.call("Predict", identity="n").trailers


def test_neither_is_an_accident_after_the_model_has_gone(client: Client) -> None:
    client.load()
    call = client.start("Predict", "wait:there raise", identity="m")
    client.gates.reached("there")
    client.call("Free")
    client.gates.open("there")
    seen = answer(call)
    assert (seen.verdict, HELD_KEY in seen.trailers) == ("MODEL_NOT_LOADED started", False)


@pytest.mark.parametrize("shape", ["Health", "LoadModel", "Free"])
def test_neither_is_the_control_plane(client: Client, shape: str) -> None:
    client.load()
    assert client.call(shape, "trailer abort").trailers == {"kept": "yes"}


@pytest.mark.parametrize(
    ("model", "value"),
    [
        ("", "1"),
        ("a b%", "a%20b%25"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("x" * 300, "x" * 255),
        ("語" * 99, "%E8%AA%9E" * 28),
        ("a" * 200 + "語" * 9, "a" * 200 + "%E8%AA%9E" * 6),
    ],
)
def test_its_value_is_the_loaded_model(client: Client, model: str, value: str) -> None:
    client.load(model=model)
    seen = client.call("Predict", "raise")
    assert seen.trailers[HELD_KEY] == value


def test_a_host_with_several_models_names_what_was_asked_for(surface: str) -> None:
    with guarded(surface, holds=lambda _name: True) as client:
        assert client.call("Predict", "raise", identity="a").trailers[HELD_KEY] == "a"
        assert client.call("Predict", "raise").trailers[HELD_KEY] == "1"


class Wordy(SyncBackend):
    """Fails with as many words as the prompt says."""

    def Predict(self, request: Any, context: Any) -> Any:
        kind, length = request.prompt.split(":")
        if kind == "raise":
            raise ValueError("x" * int(length))
        if kind == "trailer":
            context.set_trailing_metadata((("long-bin", b"x" * int(length)), (HELD_KEY, "old")))
        context.abort(grpc.StatusCode.INTERNAL, "x" * int(length) if kind == "abort" else "ä")
        return DONE


def block(seen: Answer) -> float:
    trailers = sum(
        len(key) + 32 + (len(value) * 4 / 3 if key.endswith("-bin") else len(value))
        for key, value in seen.trailers.items()
    )
    words = len(seen.text.encode()) + 2 * sum(byte > 126 for byte in seen.text.encode())
    return trailers + words + len("grpc-statusgrpc-message00") + 2 * 32


@pytest.mark.parametrize(
    ("prompt", "value"),
    [
        ("abort:3700", "m" * 200),
        ("abort:3900", "1"),
        ("abort:4000", None),
        ("raise:3600", "m" * 200),
        ("raise:3800", "1"),
        ("raise:4000", None),
        ("trailer:2700", "m" * 200),
        ("trailer:2850", "1"),
        ("trailer:3000", "old"),
    ],
)
def test_it_goes_where_there_is_room(prompt: str, value: str | None) -> None:
    with guarded("sync", Wordy(Gates())) as client:
        client.load(model="m" * 200)
        seen = client.call("Predict", prompt)
        assert seen.trailers.get(HELD_KEY) == value
        if value not in (None, "old"):
            assert block(seen) <= TRAILERS_LIMIT


def test_an_error_that_cannot_be_printed_is_vouched_for_too() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    class Backend(SyncBackend):
        def Predict(self, request: Any, context: Any) -> Any:
            context.set_code(grpc.StatusCode.INTERNAL)
            context.set_details("mute")
            raise Mute

    with guarded("sync", Backend(Gates())) as client:
        client.load()
        seen = client.call("Predict")
        assert seen.code != "OK"


def test_a_router_believes_it() -> None:
    with guarded("sync") as client:
        client.load()
        seen = client.call("Predict", "abort:FAILED_PRECONDITION")
        assert classify(met(seen)).condition is None
        del seen.trailers[HELD_KEY]
        assert is_model_not_loaded(met(seen))
