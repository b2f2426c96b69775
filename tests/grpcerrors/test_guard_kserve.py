"""The guard of a KServe v2 server: several models in one process, loaded and unloaded by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from grpcerrors import LOCALAI
from grpcerrors_protocol import inference_pb2 as v2
from tests.grpcerrors.support.guarded import answer
from tests.grpcerrors.support.kserve import SURFACES, Client, kserve

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_LOADED = "MODEL_NOT_LOADED"
STARTED = "MODEL_NOT_LOADED started"


@pytest.fixture(params=SURFACES, scope="module")
def surface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(surface: str) -> Iterator[Client]:
    with kserve(surface) as client:
        yield client


def seen(client: Client, model: str) -> set[str]:
    """What a client sees of each RPC that needs a model."""
    calls = client.infer(model), client.stream(model), client.metadata(model)
    return {answer(call).verdict for call in calls}


def test_a_server_without_a_model_is_alive_and_can_load_one(client: Client) -> None:
    """Once, the guard refused these too, and the server could never load a model."""
    assert answer(client.start("ServerLive", v2.ServerLiveRequest())).verdict == "OK"
    assert answer(client.start("ModelReady", v2.ModelReadyRequest(name="a"))).verdict == "OK"
    assert seen(client, "a") == {NOT_LOADED}
    assert client.load("a").verdict == "OK"
    assert seen(client, "a") == {"OK"}


def test_what_is_generated_stays_unimplemented(client: Client) -> None:
    for request in (v2.ServerReadyRequest(), v2.RepositoryIndexRequest()):
        rpc = type(request).__name__.removesuffix("Request")
        assert answer(client.start(rpc, request)).verdict == "UNIMPLEMENTED"


@pytest.mark.parametrize("rpc", ["ModelInfer", "ModelStreamInfer"])
def test_a_refusal_names_backend_and_model_and_has_no_messages(client: Client, rpc: str) -> None:
    client.load("b")
    call = client.infer("a") if rpc == "ModelInfer" else client.stream("a", "b")
    refusal = answer(call)
    assert (refusal.code, refusal.text, refusal.messages, refusal.started) == (
        "FAILED_PRECONDITION",
        "tiny: model not loaded",
        0,
        False,
    )
    assert call.initial_metadata() == ()


def test_models_come_and_go_one_by_one(client: Client) -> None:
    client.load("a")
    client.load("b")
    assert (seen(client, "a"), seen(client, "b"), seen(client, "c")) == (
        {"OK"},
        {"OK"},
        {NOT_LOADED},
    )
    client.unload("a")
    assert (seen(client, "a"), seen(client, "b")) == ({NOT_LOADED}, {"OK"})


FAILED = ["say:NO", "raise", "code:INTERNAL", "code:NOT_FOUND"]


@pytest.mark.parametrize("does", FAILED)
@pytest.mark.parametrize("change", ["load", "unload"])
def test_a_change_that_fails_is_of_its_model_only(client: Client, change: str, does: str) -> None:
    client.load("a")
    client.load("b")
    getattr(client, change)("a", does)
    assert (seen(client, "a"), seen(client, "b")) == ({NOT_LOADED}, {"OK"})


@pytest.mark.parametrize("change", ["load", "unload"])
def test_a_change_of_no_model_is_of_none(client: Client, change: str) -> None:
    """A malformed request must not take the other models away."""
    client.load("a")
    assert getattr(client, change)("", "code:INVALID_ARGUMENT").verdict == "INVALID_ARGUMENT"
    assert seen(client, "a") == {"OK"}


@pytest.mark.parametrize("does", ["code:UNAUTHENTICATED", "code:PERMISSION_DENIED"])
@pytest.mark.parametrize("change", ["load", "unload"])
def test_who_may_not_call_changes_nothing(client: Client, change: str, does: str) -> None:
    client.guard.loaded("a")
    client.store.models["a"] = "a"
    client.guard.loaded("b")
    getattr(client, change)("b", does)
    client.store.models["b"] = "b"
    assert (seen(client, "a"), seen(client, "b")) == ({"OK"}, {"OK"})


def test_a_server_reports_what_it_does_by_itself(client: Client) -> None:
    for name in ("a", "b"):
        client.store.models[name] = name
        client.guard.loaded(name)
    assert (seen(client, "a"), seen(client, "b")) == ({"OK"}, {"OK"})
    client.guard.unloaded("a")
    assert (seen(client, "a"), seen(client, "b")) == ({NOT_LOADED}, {"OK"})
    client.guard.unloaded()
    assert (seen(client, "a"), seen(client, "b")) == ({NOT_LOADED}, {NOT_LOADED})


@pytest.mark.parametrize("rpc", ["infer", "stream"])
def test_a_model_unloaded_under_a_call(client: Client, rpc: str) -> None:
    client.load("a")
    client.load("b")
    calls = [
        getattr(client, rpc)(name, "wait:there")
        if rpc == "infer"
        else client.stream(name, does="wait:there")
        for name in ("a", "b")
    ]
    client.gates.reached("there")
    client.gates.reached("there")
    client.unload("a")
    client.gates.open("there")
    assert [answer(call).verdict for call in calls] == [STARTED, "OK"]


@pytest.mark.parametrize("rpc", ["infer", "stream"])
def test_a_failure_with_the_model_there_is_vouched_for(client: Client, rpc: str) -> None:
    client.load("a")
    client.load("b")
    call = client.infer("a", "raise") if rpc == "infer" else client.stream("a", does="raise")
    failure = answer(call)
    assert (failure.verdict, failure.trailers["grpcerrors-held"]) == ("UNKNOWN", "a")


def test_a_stream_hands_on_every_message(client: Client) -> None:
    client.load("a")
    client.load("b")
    assert answer(client.stream("a", "b", "a")).messages == 3
    assert answer(client.stream()).verdict == "OK"


def test_a_drain_waits_for_calls_of_its_model_only(surface: str) -> None:
    with kserve(surface, drain=30) as client:
        client.load("a")
        client.load("b")
        calls = {name: client.infer(name, f"wait:{name}") for name in ("a", "b")}
        for name in calls:
            client.gates.reached(name)
        unload = client.change("Unload", "a")
        while answer(client.infer("a")).verdict == "OK":
            pass
        assert "a" in client.store.models
        client.gates.open("a")
        assert (answer(calls["a"]).verdict, answer(unload).verdict) == ("OK", "OK")
        assert "a" not in client.store.models
        client.gates.open("b")
        assert answer(calls["b"]).verdict == "OK"


def test_a_host_decides_by_itself(surface: str) -> None:
    held = {"a"}
    with kserve(surface, holds=held.__contains__) as client:
        client.store.models["a"] = client.store.models["b"] = "x"
        assert (seen(client, "a"), seen(client, "b")) == ({"OK"}, {NOT_LOADED})
        client.load("b")
        assert seen(client, "b") == {NOT_LOADED}


def test_metadata_can_be_exempt(surface: str) -> None:
    with kserve(surface, exempt={"ModelMetadata"}) as client:
        client.store.models["a"] = "a"
        assert answer(client.metadata("a")).verdict == "OK"
        assert answer(client.infer("a")).verdict == NOT_LOADED


def test_a_guard_of_another_protocol_leaves_the_server_alone(surface: str) -> None:
    with kserve(surface, protocol=LOCALAI) as client:
        client.load("a")
        assert seen(client, "a") == {"OK"}
