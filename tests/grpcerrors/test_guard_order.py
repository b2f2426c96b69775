"""The guard among other interceptors: in front of authentication, and where handlers are moved."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from grpcerrors._error import model_not_loaded
from grpcerrors._guard import aio, sync
from grpcerrors._guard.abort import abort
from tests.grpcerrors.support.guarded import (
    SERVICE,
    SHAPES,
    Client,
    Executor,
    Gates,
    SyncBackend,
    handlers,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_LOADED = "MODEL_NOT_LOADED"
CODES = {
    "UNAUTHENTICATED": grpc.StatusCode.UNAUTHENTICATED,
    "PERMISSION_DENIED": grpc.StatusCode.PERMISSION_DENIED,
}


class Door:
    """Refuses every call while it is shut, as LocalAI's `grpc_auth.py` does without the token."""

    shut: grpc.StatusCode | None = None

    def let_in(self, handler: Any) -> Any:
        return handler if self.shut is None else grpc.unary_unary_rpc_method_handler(self.refuse)

    def refuse(self, request: Any, context: Any) -> Any:
        context.abort(self.shut, "invalid token")


class SyncDoor(Door, grpc.ServerInterceptor):
    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return self.let_in(continuation(handler_call_details))


class AioDoor(Door, grpc.aio.ServerInterceptor):
    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return self.let_in(await continuation(handler_call_details))


ORDERS = ["sync: guard, door", "aio: guard, door", "aio: executor, guard, door"]
ORDERS += ["aio: guard, executor, door", "sync: door, guard", "aio: door, executor, guard"]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("change", ["LoadModel", "Free"])
@pytest.mark.parametrize("order", ORDERS)
def test_who_may_not_call_changes_nothing(order: str, change: str, code: str) -> None:
    surface, _, names = order.partition(": ")
    door = SyncDoor() if surface == "sync" else AioDoor()
    guard = (sync if surface == "sync" else aio).ModelGuard("x")
    parts = {"guard": guard, "door": door, "executor": Executor()}
    served = handlers(SyncBackend(Gates()))
    guards = [parts[name] for name in names.split(", ")]
    with serving(surface, guards, {SERVICE: served}) as channel:
        client = Client(channel, Gates(), guard)
        door.shut = CODES[code]
        assert client.call(change, identity="n").verdict == code
        door.shut = None
        assert client.call("Predict").verdict == NOT_LOADED
        client.load()
        door.shut = CODES[code]
        seen = client.call(change, identity="n")
        assert (seen.verdict, seen.text) == (code, "invalid token")
        door.shut = None
        assert {client.call(name, identity="m").verdict for name in SHAPES} == {"OK"}


class Awaiter(grpc.aio.ServerInterceptor):
    """Calls a sync handler on the loop itself, and awaits what it returns if it can."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)

        async def twin(request: Any, context: Any) -> Any:
            answer = handler.unary_unary(request, context)
            return await answer if asyncio.iscoroutine(answer) else answer

        return grpc.unary_unary_rpc_method_handler(
            twin, handler.request_deserializer, handler.response_serializer
        )


def test_a_sync_handler_that_is_called_on_the_loop_refuses_too() -> None:
    guard = aio.ModelGuard("x")
    served = handlers(SyncBackend(Gates()))
    with serving("aio", [Awaiter(), guard], {SERVICE: served}) as channel:
        client = Client(channel, Gates(), guard)
        seen = client.call("Predict")
        assert (seen.code, seen.verdict) == ("FAILED_PRECONDITION", NOT_LOADED)
        client.load()
        seen = client.call("Predict", "abort")
        assert (seen.code, seen.text) == ("INVALID_ARGUMENT", "its own words")


def test_an_executor_keeps_the_trailers_that_an_interceptor_set() -> None:
    class Marker(Executor):
        async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            handler = await super().intercept_service(continuation, handler_call_details)

            async def twin(request: Any, context: Any) -> Any:
                context.set_trailing_metadata((("kept", "yes"),))
                return await handler.unary_unary(request, context)

            return grpc.unary_unary_rpc_method_handler(
                twin, handler.request_deserializer, handler.response_serializer
            )

    guard = aio.ModelGuard("x")
    served = handlers(SyncBackend(Gates()))
    with serving("aio", [Marker(), guard], {SERVICE: served}) as channel:
        seen = Client(channel, Gates(), guard).call("Predict")
    assert (seen.verdict, seen.trailers["kept"]) == (NOT_LOADED, "yes")


class Replies(SyncBackend):
    """Aborts with an error of the contract in each way that there is."""

    def Predict(self, request: Any, context: Any) -> Any:
        if request.prompt == "status":
            context.abort_with_status(model_not_loaded("by-hand"))
        else:
            abort(context, model_not_loaded("by-hand"))

    def PredictStream(self, request: Any, context: Any) -> Iterator[Any]:
        yield self.Predict(request, context)


@pytest.mark.parametrize("name", ["Predict", "PredictStream"])
@pytest.mark.parametrize(
    ("order", "prompt"),
    [
        ("executor", ""),  # not "status": nobody awaits gRPC's own abort there
        ("guard, executor", ""),
        ("guard, executor", "status"),
        ("executor, guard", ""),
        ("executor, guard", "status"),
    ],
)
def test_abort_works_in_an_executor(order: str, prompt: str, name: str) -> None:
    guard = aio.ModelGuard("x")
    parts = {"guard": guard, "executor": Executor()}
    guards = [parts[part] for part in order.split(", ")]
    with serving("aio", guards, {SERVICE: handlers(Replies(Gates()))}) as channel:
        client = Client(channel, Gates(), guard)
        client.load()
        seen = client.call(name, prompt)
    assert (seen.code, seen.text) == ("FAILED_PRECONDITION", "by-hand: model not loaded")
