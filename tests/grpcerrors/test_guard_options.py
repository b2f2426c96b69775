"""What the guard's options do, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import types
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from grpcerrors import KSERVE, LOCALAI
from grpcerrors import aio as public_aio
from grpcerrors._guard import aio, guard, sync
from grpcerrors._guard.methods import Role, is_unimplemented, role_of
from tests.grpcerrors.support.guarded import (
    BACKENDS,
    DONE,
    SERVICE,
    SHAPES,
    SURFACES,
    AioBackend,
    Client,
    Gates,
    SyncBackend,
    answer,
    guarded,
    handlers,
    interceptors,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grpcerrors import Protocol

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


# --- a host with several models ---


def test_a_host_with_several_models_never_answers_a_mismatch(surface: str) -> None:
    held = {"a", "b"}
    with guarded(surface, holds=lambda name: name in held or (not name and bool(held))) as client:
        assert client.call("Predict", identity="a").verdict == "OK"
        assert client.call("Predict", identity="c").verdict == NOT_LOADED
        assert client.call("AudioTranscriptionLive").verdict == "OK"
        call = client.start("Predict", "wait:there raise", identity="a")
        other = client.start("Predict", "wait:there raise", identity="b")
        client.gates.reached("there")
        client.gates.reached("there")
        held.remove("a")
        client.guard.unloaded()
        held.add("a")
        client.gates.open("there")
        assert answer(call).verdict == STARTED
        assert answer(other).verdict == "UNKNOWN"
        held.clear()
        assert client.call("AudioTranscriptionLive").verdict == NOT_LOADED


def test_a_load_that_loads_nothing_is_seen_by_the_host(surface: str) -> None:
    """As a backend does that is loaded to fine-tune, and answers that it has succeeded."""
    with guarded(surface, holds=lambda _name: False) as client:
        assert client.load().verdict == "OK"
        assert client.call("Predict", identity="m").verdict == NOT_LOADED


def test_a_model_that_an_exempt_rpc_loads_is_reported(surface: str) -> None:
    """As a backend does whose first request names the model to load."""
    with guarded(surface, exempt={"Predict"}) as client:
        assert client.call("PredictStream", identity="m").verdict == NOT_LOADED
        assert client.call("Predict", identity="m").verdict == "OK"
        client.guard.loaded("m")
        assert client.call("PredictStream", identity="m").verdict == "OK"
        assert client.call("PredictStream", identity="n").verdict == "MODEL_MISMATCH"


# --- draining ---


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


# --- cancellation ---


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


# --- what nobody wrote, and what is not ours ---


def generated(*names: str) -> Any:
    """A servicer base class as grpcio-tools generates it."""

    def method(self: Any, request: Any, context: Any) -> Any:
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        context.set_details("Method not implemented!")
        raise NotImplementedError("Method not implemented!")

    def named(name: str) -> Any:
        twin = types.FunctionType(method.__code__, method.__globals__, name)
        twin.__module__, twin.__qualname__ = (
            "grpcerrors_protocol.backend_pb2_grpc",
            f"BackendServicer.{name}",
        )
        return twin

    return type("BackendServicer", (), {name: named(name) for name in names})()


def test_what_is_not_implemented_stays_so(surface: str) -> None:
    gates = Gates()
    backend = BACKENDS[surface](gates)
    base = generated("Free", *SHAPES)
    backend.Free = base.Free
    for name in SHAPES:
        setattr(backend, name, getattr(base, name))
    with guarded(surface, backend) as client:
        for _ in range(2):
            seen = {name: client.call(name).verdict for name in (*SHAPES, "Free", "Diarize")}
            assert seen == dict.fromkeys(seen, "UNIMPLEMENTED")
            client.load()


def test_generated_methods_are_seen_through_wrappers() -> None:
    base = generated("Predict").Predict

    @functools.wraps(base)
    def wrapped(*args: Any) -> Any:
        return base(*args)

    def closed_over(behavior: Any, log: Any = print) -> Any:
        def twin(*args: Any) -> Any:
            log(args)
            return behavior(*args)

        return twin

    assert is_unimplemented(base)
    assert is_unimplemented(functools.partial(base))
    assert is_unimplemented(wrapped)
    assert is_unimplemented(functools.partial(functools.partial(wrapped)))
    assert is_unimplemented(closed_over(functools.partial(closed_over(wrapped))))
    assert is_unimplemented(functools.wraps(closed_over(base))(closed_over(print)))
    assert not is_unimplemented(closed_over(base, closed_over(base))), "which one does it call?"
    assert not is_unimplemented(closed_over(SyncBackend(Gates()).Predict))
    assert not is_unimplemented(SyncBackend(Gates()).Predict)
    assert not is_unimplemented(functools.partial(SyncBackend(Gates()).Predict))


def test_a_wrapper_of_nothing_or_of_itself_is_nobodys_generated_method() -> None:
    def early(*args: Any) -> Any:
        return later(*args)

    assert not is_unimplemented(early)
    later = early
    assert not is_unimplemented(early)


def test_a_callable_object_is_nobodys_generated_method() -> None:
    class Handler:
        def __call__(self, request: Any, context: Any) -> Any: ...

    assert not is_unimplemented(Handler())


@pytest.mark.parametrize(
    ("protocol", "name", "exempt", "role"),
    [
        (LOCALAI, "Predict", (), Role.INFERENCE),
        (LOCALAI, "Predict", {"VAD"}, Role.INFERENCE),
        (LOCALAI, "VAD", {"VAD"}, Role.CONTROL),
        (LOCALAI, "LoadModel", {"LoadModel"}, Role.LOAD),
        (LOCALAI, "Free", (), Role.UNLOAD),
        (LOCALAI, "Status", (), Role.CONTROL),
        (LOCALAI, "NotYetInvented", (), Role.INFERENCE),
        (KSERVE, "ModelInfer", (), Role.INFERENCE),
        (KSERVE, "RepositoryModelLoad", (), Role.LOAD),
        (KSERVE, "RepositoryModelUnload", (), Role.UNLOAD),
        (KSERVE, "ServerLive", (), Role.CONTROL),
    ],
)
def test_roles(protocol: Protocol, name: str, exempt: set[str], role: Role) -> None:
    assert role_of(protocol, name, exempt) is role


@pytest.mark.parametrize("service", [None, SERVICE, "acme.Other"])
def test_only_one_service_is_guarded(
    surface: str, service: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    gates = Gates()
    kind = sync.ModelGuard if surface == "sync" else aio.ModelGuard
    served = handlers(BACKENDS[surface](gates))
    services = {SERVICE: served, "grpc.health.v1.Health": served, "acme.Other": served}
    protocol = dataclasses.replace(LOCALAI, service=service) if service else None
    guards = interceptors(surface, kind("x", protocol=protocol))
    seen: dict[str, list[str]] = {}
    with serving(surface, guards, services) as channel, caplog.at_level(logging.WARNING):
        for name in services:
            for rpc in ("Predict", "LoadModel", "Predict"):
                call = channel.stream_stream(f"/{name}/{rpc}")(iter([b""]), timeout=30)
                seen.setdefault(name, []).append(answer(call).verdict)
    assert seen == {
        name: [NOT_LOADED if name == (service or SERVICE) else "OK", "OK", "OK"]
        for name in services
    }
    warned = [text for text in caplog.messages if "does not know the service acme.Other" in text]
    assert len(warned) == (service is None)
    assert caplog.text.count("does not know") == len(warned)


def test_an_exempt_rpc_works_without_a_model(surface: str) -> None:
    with guarded(surface, exempt={"Predict"}) as client:
        assert client.call("Predict").verdict == "OK"
        seen = client.call("Predict", "raise")
        assert (seen.verdict, seen.trailers.get("grpcerrors-held")) == ("UNKNOWN", None)
        assert client.call("PredictStream").verdict == NOT_LOADED


# --- what else there is ---


def test_exempt_takes_names() -> None:
    with pytest.raises(TypeError, match=r"exempt must be a set of names, such as \{'VAD'\}"):
        sync.ModelGuard("x", exempt="VAD")


def test_the_services_warned_about_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_CACHED", 2)
    made = sync.ModelGuard("x")
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: DONE)
    for name in "ABCD":
        assert made._guard(f"/{name}/Predict", handler) is handler
        assert made._guard(f"/{name}/Predict", None) is None
    assert made._unknown == {"A", "B"}


@pytest.mark.parametrize("drain", [-1, math.nan])
def test_a_negative_drain_is_refused(drain: float) -> None:
    with pytest.raises(ValueError, match=f"drain must be None or seconds from 0 on, not {drain}"):
        sync.ModelGuard("x", drain=drain)


def test_both_guards_are_documented_alike() -> None:
    assert public_aio.ModelGuard is aio.ModelGuard
    assert sync.ModelGuard.__doc__ == aio.ModelGuard.__doc__ == guard.Guard.__doc__


def test_bytes_and_empty_messages_are_guarded_too() -> None:
    """Handlers without a deserializer see bytes: no identity, and a load that answers is a load."""
    served = {
        "LoadModel": grpc.unary_unary_rpc_method_handler(lambda _request, _context: b""),
        "Predict": grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"ok"),
    }
    with serving("sync", [sync.ModelGuard("x")], {SERVICE: served}) as channel:
        client = Client(channel, Gates(), None)
        assert client.call("Predict").verdict == NOT_LOADED
        assert client.load().verdict == "OK"
        assert channel.unary_unary(f"/{SERVICE}/Predict")(b"", timeout=30) == b"ok"


def test_a_load_that_answers_nothing_is_none() -> None:
    class Broken(SyncBackend):
        def LoadModel(self, request: Any, context: Any) -> Any: ...

    with guarded("sync", Broken(Gates())) as client:
        assert client.load().verdict == "INTERNAL"
        assert client.call("Predict").verdict == NOT_LOADED


def test_handlers_are_wrapped_once_and_the_cache_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "_CACHED", 2)
    made = sync.ModelGuard("x")
    for name in "AB":  # methods that do not exist, of which a client can name any number
        assert made._guard(f"/{SERVICE}/{name}", None) is None
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: DONE)
    first = made._guard(f"/{SERVICE}/C", handler)
    assert made._guard(f"/{SERVICE}/C", handler) is first
    fresh = grpc.unary_unary_rpc_method_handler(lambda request, context: DONE)
    assert made._guard(f"/{SERVICE}/C", fresh) is not first
    for name in "DEFG":
        made._guard(f"/{SERVICE}/{name}", handler)
    assert len(made._guarded) == 2


def test_an_abstract_guard_wraps_nothing() -> None:
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: DONE)
    with pytest.raises(NotImplementedError):
        guard.Guard("x")._guard(f"/{SERVICE}/C", handler)


@pytest.mark.parametrize("surface", ON_AIO)
def test_abort_takes_what_grpcs_own_takes(surface: str) -> None:
    """Trailers given to abort, a status object, and everything else of the context."""

    class Sync(SyncBackend):
        def Predict(self, request: Any, context: Any) -> Any:
            assert context.peer()
            context.abort(grpc.StatusCode.ABORTED, "a", (("kept", request.prompt),))

        def Health(self, request: Any, context: Any) -> Any:
            context.abort_with_status(Status())

    class Aio(AioBackend):
        async def Predict(self, request: Any, context: Any) -> Any:
            assert context.peer()
            await context.abort(grpc.StatusCode.ABORTED, "a", (("kept", request.prompt),))

        async def Health(self, request: Any, context: Any) -> Any:
            await context.abort_with_status(Status())

    class Status(grpc.Status):
        code, details = grpc.StatusCode.DATA_LOSS, "b"
        trailing_metadata = (("kept", "status"),)

    backend = (Sync if surface in SYNC_ON_AIO else Aio)(Gates())
    with guarded(surface, backend) as client:
        client.load()
        seen = client.call("Predict", "prompt")
        assert (seen.code, seen.text, seen.trailers) == (
            "ABORTED",
            "a",
            {"kept": "prompt", "grpcerrors-held": "m"},
        )
        seen = client.call("Health")
        assert (seen.code, seen.text, seen.trailers) == ("DATA_LOSS", "b", {"kept": "status"})


async def test_a_sync_guard_on_an_aio_server_is_refused() -> None:
    with pytest.raises(ValueError, match="ServerInterceptor"):
        grpc.aio.server(interceptors=[sync.ModelGuard("x")])
