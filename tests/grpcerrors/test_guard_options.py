"""What the guard's options do, and unusual handlers and servers."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import pytest

from grpcerrors import aio as public_aio
from grpcerrors._guard import aio, guard, sync
from tests.grpcerrors.support.guarded import (
    SERVICE,
    SURFACES,
    AioBackend,
    Client,
    Gates,
    SyncBackend,
    answer,
    guarded,
    serving,
)

NOT_LOADED = "MODEL_NOT_LOADED"


STARTED = "MODEL_NOT_LOADED started"


ON_AIO = [surface for surface in SURFACES if surface != "sync"]


SYNC_ON_AIO = [surface for surface in ON_AIO if surface.startswith("sync")]


@pytest.fixture(params=SURFACES, scope="module")
def surface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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


def test_an_exempt_rpc_works_without_a_model(surface: str) -> None:
    with guarded(surface, exempt={"Predict"}) as client:
        assert client.call("Predict").verdict == "OK"
        seen = client.call("Predict", "raise")
        assert (seen.verdict, seen.trailers.get("grpcerrors-held")) == ("UNKNOWN", None)
        assert client.call("PredictStream").verdict == NOT_LOADED


def test_exempt_takes_names() -> None:
    with pytest.raises(TypeError, match=r"exempt must be a set of names, such as \{'VAD'\}"):
        sync.ModelGuard("x", exempt="VAD")


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
