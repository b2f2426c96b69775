"""What a caller hears while its model is being loaded, and what it hears after that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from grpcerrors import classify
from grpcerrors.testing import FakeRpcError
from tests.grpcerrors.support.guarded import SHAPES, SURFACES, Answer, Client, answer, guarded
from tests.grpcerrors.support.kserve import SURFACES as KSERVE_SURFACES
from tests.grpcerrors.support.kserve import kserve

if TYPE_CHECKING:
    from collections.abc import Iterator

LOADING = "MODEL_LOADING"
NOT_LOADED = "MODEL_NOT_LOADED"


@pytest.fixture(params=SURFACES, scope="module")
def surface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(surface: str) -> Iterator[Client]:
    with guarded(surface) as client:
        yield client


def begin(client: Client, model: str, gate: str = "load", does: str = "") -> grpc.Call:
    """Begin a load that waits at a gate, and then does something."""
    load: grpc.Call = client.start("LoadModel", f"wait:{gate} {does}", identity=model)
    client.gates.reached(gate)
    return load


def end(client: Client, load: grpc.Call, gate: str = "load") -> str:
    client.gates.open(gate)
    return answer(load).verdict


def seen(client: Client, *models: str) -> list[str]:
    return [client.call("Predict", identity=model).verdict for model in models]


def retry_after(met: Answer) -> float | None:
    trailers = tuple(met.trailers.items())
    return classify(FakeRpcError(grpc.StatusCode[met.code], met.text, trailers)).retry_after


@pytest.mark.parametrize("shape", SHAPES)
def test_a_caller_is_asked_to_try_again(client: Client, shape: str) -> None:
    load = begin(client, "m")
    call = client.start(shape, identity="m")
    met = answer(call)
    assert (met.code, met.text, met.verdict, met.messages) == (
        "UNAVAILABLE",
        "kokoro: model is loading",
        LOADING,
        0,
    )
    assert met.trailers["grpcerrors-unexecuted"] == LOADING
    assert 0.1 <= (retry_after(met) or 0) <= 5
    assert call.initial_metadata() == (), "a proxy re-sends only what is trailers-only"
    assert end(client, load) == "OK"
    assert client.call(shape, identity="m").verdict == "OK"


@pytest.mark.parametrize("does", ["false", "raise", "abort", "code"])
def test_after_a_load_that_failed_the_model_is_not_loaded(client: Client, does: str) -> None:
    load = begin(client, "m", does=does)
    assert seen(client, "m") == [LOADING]
    end(client, load)
    assert seen(client, "m", "") == [NOT_LOADED, NOT_LOADED]


def test_who_may_not_load_leaves_the_model_as_it_was(client: Client) -> None:
    client.load()
    load = begin(client, "m", does="abort:PERMISSION_DENIED")
    assert seen(client, "m") == [LOADING]
    assert end(client, load) == "PERMISSION_DENIED"
    assert seen(client, "m") == ["OK"]


def test_a_load_of_another_model_brings_nothing(client: Client) -> None:
    """Waiting would not help, so a router is told to look elsewhere at once."""
    client.load(model="old")
    load = begin(client, "new")
    assert seen(client, "old", "new", "", "third") == [NOT_LOADED, LOADING, LOADING, NOT_LOADED]
    end(client, load)
    assert seen(client, "old", "new") == ["MODEL_MISMATCH", "OK"]


def test_a_load_of_a_model_without_a_name_brings_every_one(client: Client) -> None:
    load = begin(client, "")
    assert seen(client, "m", "") == [LOADING, LOADING]
    end(client, load)
    assert seen(client, "m", "") == ["OK", "OK"]


def test_of_two_loads_of_one_model_either_brings_it(client: Client) -> None:
    """A router that gave up waiting has sent the load again."""
    loads = {gate: begin(client, "m", gate) for gate in ("first", "second")}
    assert seen(client, "m") == [LOADING]
    assert end(client, loads["first"], "first") == "OK"
    assert seen(client, "m") == [LOADING]
    assert end(client, loads["second"], "second") == "OK"
    assert seen(client, "m") == ["OK"]


def test_if_one_of_two_loads_fails_nothing_counts(client: Client) -> None:
    loads = {
        "first": begin(client, "m", "first", "false"),
        "second": begin(client, "m", "second"),
    }
    assert end(client, loads["first"], "first") == "OK"
    assert seen(client, "m") == [NOT_LOADED]
    assert end(client, loads["second"], "second") == "OK"
    assert seen(client, "m") == [NOT_LOADED]


@pytest.mark.parametrize("other", ["LoadModel", "Free"])
def test_changes_that_overlap_bring_nothing(client: Client, other: str) -> None:
    load = begin(client, "m")
    change = client.start(other, "wait:other", identity="n" if other == "LoadModel" else "")
    client.gates.reached("other")
    assert seen(client, "m", "n", "") == [NOT_LOADED] * 3
    end(client, change, "other")
    assert seen(client, "m", "n", "") == [NOT_LOADED] * 3
    end(client, load)
    assert seen(client, "m", "n", "") == [NOT_LOADED] * 3


def test_a_free_that_waits_for_calls_is_no_load(surface: str) -> None:
    with guarded(surface, drain=30) as client:
        client.load()
        early = client.start("Predict", "wait:early", identity="m")
        client.gates.reached("early")
        free = client.start("Free")
        while (met := seen(client, "m")) == ["OK"]:
            pass
        assert met == [NOT_LOADED]
        client.gates.open("early")
        assert (answer(early).verdict, answer(free).verdict) == ("OK", "OK")


def test_a_load_that_waits_for_calls_is_one(surface: str) -> None:
    with guarded(surface, drain=30) as client:
        client.load()
        early = client.start("Predict", "wait:early", identity="m")
        client.gates.reached("early")
        load = client.start("LoadModel", identity="n")
        while seen(client, "m") == ["OK"]:
            pass
        assert seen(client, "m", "n") == [NOT_LOADED, LOADING]
        client.gates.open("early")
        assert (answer(early).verdict, answer(load).verdict) == ("OK", "OK")
        assert seen(client, "n") == ["OK"]


def test_a_load_that_was_cancelled_is_over() -> None:
    with guarded("aio") as client:
        load = begin(client, "m")
        load.cancel()
        while seen(client, "m") == [LOADING]:
            pass
        assert seen(client, "m") == [NOT_LOADED]


def test_a_host_with_several_models_serves_the_others_meanwhile(surface: str) -> None:
    held = {"a"}
    with guarded(surface, holds=lambda name: name in held or (not name and bool(held))) as client:
        load = begin(client, "b")
        assert seen(client, "a", "b", "c", "") == ["OK", LOADING, NOT_LOADED, "OK"]
        second = begin(client, "c", "second")
        assert seen(client, "a", "b", "c") == ["OK", LOADING, LOADING]
        held.remove("a")
        assert seen(client, "") == [LOADING]
        held.add("b")
        end(client, load)
        end(client, second, "second")
        assert seen(client, "a", "b", "c") == [NOT_LOADED, "OK", NOT_LOADED]


@pytest.mark.parametrize("surface", KSERVE_SURFACES)
def test_so_does_a_kserve_server(surface: str) -> None:
    with kserve(surface) as client:
        client.load("a")
        load = client.change("Load", "b", "wait:load")
        client.gates.reached("load")
        calls = client.infer("a"), client.infer("b"), client.stream("b"), client.metadata("b")
        assert [answer(call).verdict for call in calls] == ["OK", LOADING, LOADING, LOADING]
        assert answer(client.infer("c")).verdict == NOT_LOADED
        client.gates.open("load")
        assert answer(load).verdict == "OK"
        assert answer(client.infer("b")).verdict == "OK"
