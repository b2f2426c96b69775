"""The plain trailer on real servers: which errors have it, and that they are trailers-only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from grpcerrors._wire import HELD_KEY, UNEXECUTED_KEY
from tests.grpcerrors.support import http2
from tests.grpcerrors.support.guarded import (
    SERVICE,
    SHAPES,
    SURFACES,
    Client,
    Request,
    answer,
    guarded,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=SURFACES, scope="module")
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    with guarded(str(request.param)) as client:
        yield client


@pytest.fixture(autouse=True)
def _nothing_loaded(client: Client) -> None:
    client.call("Free")


def frames(client: Client, name: str, prompt: str = "", identity: str = "") -> http2.Frames:
    target = client.channel._channel.target().decode()
    request = Request(ModelIdentity=identity, prompt=prompt)
    return http2.ask(target.removeprefix("dns:///"), f"/{SERVICE}/{name}", request)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_refusal_says_that_nothing_was_executed(client: Client, shape: str) -> None:
    assert client.call(shape).trailers[UNEXECUTED_KEY] == "MODEL_NOT_LOADED"


@pytest.mark.parametrize("shape", ["Predict", "PredictStream"])
def test_so_does_a_mismatch(client: Client, shape: str) -> None:
    client.load()
    assert client.call(shape, identity="n").trailers[UNEXECUTED_KEY] == "MODEL_MISMATCH"


@pytest.mark.parametrize("ending", ["typed", "abort-typed", "status-typed"])
@pytest.mark.parametrize("shape", SHAPES)
def test_so_does_an_error_of_the_handler(client: Client, shape: str, ending: str) -> None:
    """Raised, with `abort`, and with gRPC's own `context.abort_with_status`."""
    client.load()
    seen = client.call(shape, ending, identity="m")
    assert (seen.verdict, seen.trailers[UNEXECUTED_KEY]) == ("MODEL_NOT_LOADED", "MODEL_NOT_LOADED")
    assert HELD_KEY not in seen.trailers


@pytest.mark.parametrize("ending", ["raise", "abort", "code", "false"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_failure_of_the_handler_does_not(client: Client, shape: str, ending: str) -> None:
    client.load()
    assert UNEXECUTED_KEY not in client.call(shape, ending, identity="m").trailers


@pytest.mark.parametrize("shape", SHAPES)
def test_nor_does_a_failure_after_the_model_has_gone(client: Client, shape: str) -> None:
    client.load()
    call = client.start(shape, f"wait:{shape} raise", identity="m")
    client.gates.reached(shape)
    client.call("Free")
    client.gates.open(shape)
    seen = answer(call)
    assert seen.verdict == "MODEL_NOT_LOADED started"
    assert not {UNEXECUTED_KEY, HELD_KEY} & set(seen.trailers)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_refusal_is_sent_as_trailers_only(client: Client, shape: str) -> None:
    """So a proxy sees the trailer while it can still send the call elsewhere."""
    assert frames(client, shape).trailers_only


@pytest.mark.parametrize("shape", ["Predict", "PredictStream"])
def test_so_is_a_mismatch(client: Client, shape: str) -> None:
    client.load()
    assert frames(client, shape, identity="n").trailers_only


@pytest.mark.parametrize("ending", ["typed", "abort-typed", "status-typed"])
@pytest.mark.parametrize("shape", SHAPES)
def test_so_is_an_error_of_the_handler_before_its_first_message(
    client: Client, shape: str, ending: str
) -> None:
    client.load()
    assert frames(client, shape, ending).trailers_only


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_is_not(client: Client, shape: str) -> None:
    client.load()
    assert frames(client, shape) == (["HEADERS", "DATA", "HEADERS"], False)


@pytest.mark.parametrize("shape", ["PredictStream", "AudioTranscriptionLive"])
def test_nor_is_an_error_after_a_message(client: Client, shape: str) -> None:
    client.load()
    assert frames(client, shape, "yield typed") == (["HEADERS", "DATA", "HEADERS"], False)
