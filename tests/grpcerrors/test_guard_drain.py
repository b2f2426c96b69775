"""Loads and frees that wait for the calls in flight, and calls that are cancelled."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from grpcerrors._guard import sync
from tests.grpcerrors.support.guarded import (
    SHAPES,
    SURFACES,
    Client,
    answer,
    guarded,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


NOT_LOADED = "MODEL_NOT_LOADED"


STARTED = "MODEL_NOT_LOADED started"


ON_AIO = [surface for surface in SURFACES if surface != "sync"]


SYNC_ON_AIO = [surface for surface in ON_AIO if surface.startswith("sync")]


@pytest.fixture(params=SURFACES, scope="module")
def surface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(surface: str) -> Iterator[Client]:
    with guarded(surface) as client:
        yield client


def in_flight(client: Client) -> int:
    return len(client.guard._models._calls)


@pytest.mark.parametrize("drain", [30, 1e12, math.inf])  # Python cannot wait for 1e12 s
def test_a_change_waits_for_the_calls_in_flight(surface: str, drain: float) -> None:
    with guarded(surface, drain=drain) as client:
        client.load()
        early = client.start("PredictStream", "yield wait:early")
        client.gates.reached("early")
        free = client.start("Free", "wait:free")
        while client.call("Predict").verdict == "OK":
            pass
        assert not client.gates._gate("free")[0].acquire(timeout=0.05)
        client.gates.open("early")
        assert answer(early).verdict == "OK"
        client.gates.reached("free")
        client.gates.open("free")
        assert answer(free).verdict == "OK"
        assert client.call("Predict").verdict == NOT_LOADED
        assert client.load().verdict == "OK"
        assert client.call("Predict").verdict == "OK"


def test_a_drain_that_takes_too_long_is_given_up(surface: str) -> None:
    with guarded(surface, drain=0.01) as client:
        client.load()
        early = client.start("Predict", "wait:early raise")
        client.gates.reached("early")
        assert client.call("Free").verdict == "OK"
        client.gates.open("early")
        assert answer(early).verdict == STARTED


def test_a_drain_does_not_hide_what_a_running_handler_says(surface: str) -> None:
    """The change is announced, but the model is still there."""
    with guarded(surface, drain=30) as client:
        client.load()
        early = client.start("Predict", "wait:early abort:INVALID_ARGUMENT")
        client.gates.reached("early")
        free = client.start("Free")
        while client.call("Predict").verdict == "OK":
            pass
        client.gates.open("early")
        seen = answer(early)
        assert (seen.verdict, seen.text) == ("INVALID_ARGUMENT", "its own words")
        assert seen.trailers["grpcerrors-held"] == "m"
        assert answer(free).verdict == "OK"


@pytest.mark.parametrize("change", ["Free", "LoadModel"])
def test_a_change_cancelled_while_it_waits_has_changed_nothing(change: str) -> None:
    with guarded("aio", drain=30) as client:
        client.load()
        early = client.start("Predict", "wait:early")
        client.gates.reached("early")
        waiting = client.start(change, identity="m" if change == "LoadModel" else "")
        while client.call("Predict").verdict == "OK":
            pass
        waiting.cancel()
        while client.call("Predict").verdict != "OK":
            pass
        client.gates.open("early")
        assert answer(early).verdict == "OK"


# gRPC's own thread never ends where a client leaves a sync stream on an aio server.
@pytest.mark.parametrize("shape", SHAPES)
def test_a_cancelled_call_has_left(client: Client, surface: str, shape: str) -> None:
    executor = surface != "sync on aio" and not SHAPES[shape][0]
    if surface in SYNC_ON_AIO and SHAPES[shape][1] and not executor:
        pytest.skip("grpcio keeps the thread of a cancelled sync stream on an aio server")
    client.load()
    call = client.start(shape, "yield wait:there yield yield")
    client.gates.reached("there")
    assert in_flight(client) == 1
    call.cancel()
    client.gates.open("there")
    while in_flight(client):
        pass
    assert client.call(shape).verdict == "OK"


def test_a_cancelled_load_leaves_nothing_loaded() -> None:
    with guarded("aio") as client:
        client.load()
        call = client.start("LoadModel", "wait:load", identity="n")
        client.gates.reached("load")
        call.cancel()
        while client.guard._models._changes:
            pass
        assert client.call("Predict", identity="n").verdict == NOT_LOADED


def test_a_cancelled_free_leaves_nothing_loaded() -> None:
    with guarded("aio") as client:
        client.load()
        call = client.start("Free", "wait:free")
        client.gates.reached("free")
        call.cancel()
        while client.guard._models._changes:
            pass
        assert client.call("Predict").verdict == NOT_LOADED


@pytest.mark.parametrize("drain", [-1, math.nan])
def test_a_negative_drain_is_refused(drain: float) -> None:
    with pytest.raises(ValueError, match=f"drain must be None or seconds from 0 on, not {drain}"):
        sync.ModelGuard("x", drain=drain)
