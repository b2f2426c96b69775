"""`abort` on every kind of context, for every shape of RPC."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from grpcerrors import ContractError, _wire, model_mismatch, model_not_loaded
from grpcerrors._guard.abort import abort
from tests.grpcerrors.support.guarded import (
    BACKENDS,
    SERVICE,
    SHAPES,
    SURFACES,
    Client,
    Gates,
    handlers,
    interceptors,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ERROR = model_not_loaded("x", model="m")


@pytest.fixture(params=SURFACES)
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A backend without any guard."""
    gates = Gates()
    served = handlers(BACKENDS[request.param](gates))
    with serving(request.param, interceptors(request.param), {SERVICE: served}) as channel:
        yield Client(channel, gates, None)


@pytest.mark.parametrize("shape", SHAPES)
def test_ends_the_call_and_keeps_earlier_trailers(client: Client, shape: str) -> None:
    seen = client.call(shape, "trailer abort-typed wait:never")
    assert (seen.verdict, seen.text) == ("MODEL_NOT_LOADED", "by-hand: model not loaded")
    assert (seen.trailers["kept"], seen.messages) == ("yes", 0)


class Context:
    """A plain fake: it records, and raises nothing."""

    def __init__(self, earlier: Any = None) -> None:
        self.trailers = earlier
        self.sent: tuple[Any, str] | None = None

    def trailing_metadata(self) -> Any:
        return self.trailers

    def set_trailing_metadata(self, trailers: Any) -> None:
        self.trailers = trailers

    def add_callback(self, callback: Any) -> None: ...

    def abort(self, code: Any, details: str) -> None:
        self.sent = code, details


class AioContext(Context):
    def add_done_callback(self, callback: Any) -> None: ...

    async def abort(self, code: Any, details: str) -> None:  # type: ignore[override]
        super().abort(code, details)


def test_a_fake_that_returns_gets_the_error_raised() -> None:
    context = Context()
    with pytest.raises(ContractError) as caught:
        abort(context, ERROR)
    assert caught.value is ERROR
    assert context.sent == (ERROR.code, ERROR.details)
    assert context.trailers == ERROR.trailing_metadata


async def test_an_aio_fake_that_returns_gets_the_error_raised() -> None:
    context = AioContext()
    with pytest.raises(ContractError) as caught:
        await abort(context, ERROR)
    assert caught.value is ERROR
    assert context.sent == (ERROR.code, ERROR.details)


def test_an_aio_fake_without_a_loop_gives_a_coroutine() -> None:
    sent: Any = abort(AioContext(), ERROR)
    with pytest.raises(ContractError) as caught:
        asyncio.run(sent)
    assert caught.value is ERROR


@pytest.mark.parametrize("make", [mock.Mock, mock.MagicMock])
def test_mocks_are_contexts_too(make: Any) -> None:
    context = make()
    with pytest.raises(ContractError):
        abort(context, ERROR)
    context.abort.assert_called_once_with(ERROR.code, ERROR.details)


def test_a_context_that_shows_no_trailers_will_do() -> None:
    context = mock.Mock(spec=["abort", "set_trailing_metadata"])
    with pytest.raises(ContractError):
        abort(context, ERROR)
    context.set_trailing_metadata.assert_called_once_with(ERROR.trailing_metadata)


@pytest.mark.parametrize("change", [str, str.title])
@pytest.mark.parametrize("error", [ERROR, model_not_loaded("x", started=True)])
def test_what_an_earlier_error_said_gives_way(
    error: ContractError, change: Callable[[str], str]
) -> None:
    """Its details, and above all its plain trailer: a proxy would believe it."""
    mismatch = model_mismatch("x", loaded="a", requested="b")
    (details, status), (plain, reason) = mismatch.trailing_metadata
    earlier = (("a", "1"), (change(details), status), (change(plain), reason), ("b-bin", b"2"))
    context = Context(earlier)
    with pytest.raises(ContractError):
        abort(context, error)
    assert context.trailers == (("a", "1"), ("b-bin", b"2"), *error.trailing_metadata)


async def test_no_coroutine_is_left_behind() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            with pytest.raises(ContractError):
                await abort(AioContext(), ERROR)
        gc.collect()
        await asyncio.sleep(0)


@pytest.mark.parametrize("key", [_wire.HELD_KEY, "Grpcerrors-Held"])
def test_what_another_guard_vouched_for_gives_way(key: str) -> None:
    """Of two guards the inner one may vouch for a model that the outer one misses."""
    context = Context((("a", "1"), (key, "tiny.en")))
    with pytest.raises(ContractError):
        abort(context, ERROR)
    assert context.trailers == (("a", "1"), *ERROR.trailing_metadata)
