"""Which methods are guarded: not the generated ones, and not those of other services."""

from __future__ import annotations

import dataclasses
import functools
import logging
import types
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from grpcerrors import KSERVE, LOCALAI
from grpcerrors._guard import aio, guard, sync
from grpcerrors._guard.methods import Role, is_unimplemented, role_of
from tests.grpcerrors.support.guarded import (
    BACKENDS,
    DONE,
    SERVICE,
    SHAPES,
    SURFACES,
    Gates,
    SyncBackend,
    answer,
    guarded,
    handlers,
    interceptors,
    serving,
)

if TYPE_CHECKING:
    from grpcerrors import Protocol


NOT_LOADED = "MODEL_NOT_LOADED"


@pytest.fixture(params=SURFACES, scope="module")
def surface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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


def test_the_services_warned_about_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_CACHED", 2)
    made = sync.ModelGuard("x")
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: DONE)
    for name in "ABCD":
        assert made._guard(f"/{name}/Predict", handler) is handler
        assert made._guard(f"/{name}/Predict", None) is None
    assert made._unknown == {"A", "B"}


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
