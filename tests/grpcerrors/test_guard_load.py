"""Two hundred callers while the model comes and goes: not one answer that a router cannot read."""

from __future__ import annotations

import asyncio
import collections
import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any

import pytest

from tests.grpcerrors.support.guarded import (
    BACKENDS,
    DONE,
    SHAPES,
    SURFACES,
    Client,
    Gates,
    SyncBackend,
    guarded,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

READABLE = {"OK", "MODEL_LOADING", "MODEL_NOT_LOADED", "MODEL_NOT_LOADED started"}


class Model:
    def run(self) -> None: ...


class _Holder:
    """Holds a model that Free takes away under running calls, as real backends do."""

    model: Any = None

    def change(self, name: str) -> Any:
        self.model = Model() if name == "LoadModel" else None
        return DONE


def sync_backend() -> Any:
    holder = _Holder()

    class Backend(SyncBackend):
        def LoadModel(self, request: Any, context: Any) -> Any:
            return holder.change("LoadModel")

        def Free(self, request: Any, context: Any) -> Any:
            return holder.change("Free")

        def _unary(self, prompt: str, context: Any) -> Any:
            for _ in range(20):
                holder.model.run()
            return DONE

        def _stream(self, prompt: str, context: Any) -> Iterator[Any]:
            for _ in range(3):
                holder.model.run()
                yield DONE

    return Backend(Gates())


def aio_backend(base: Any) -> Any:
    holder = _Holder()

    class Backend(base):
        async def LoadModel(self, request: Any, context: Any) -> Any:
            return holder.change("LoadModel")

        async def Free(self, request: Any, context: Any) -> Any:
            return holder.change("Free")

        async def _unary(self, prompt: str, context: Any) -> Any:
            for _ in range(20):
                holder.model.run()
                await asyncio.sleep(0)
            return DONE

        async def _stream(self, prompt: str, context: Any) -> AsyncIterator[Any]:
            for _ in range(3):
                holder.model.run()
                await asyncio.sleep(0)
                yield DONE

    return Backend(Gates())


def storm(client: Client, callers: int, rounds: int) -> collections.Counter[str]:
    seen: collections.Counter[str] = collections.Counter()
    over = threading.Event()
    shapes = list(SHAPES)

    def call(number: int) -> collections.Counter[str]:
        mine: collections.Counter[str] = collections.Counter()
        while not over.is_set():
            mine[client.call(shapes[number % 4], identity="m" if number % 2 else "").verdict] += 1
        return mine

    with futures.ThreadPoolExecutor(callers) as pool:
        running = [pool.submit(call, number) for number in range(callers)]
        try:
            for _ in range(rounds):
                client.load()
                client.call("Free")
        finally:
            over.set()
        for each in running:
            seen += each.result()
    return seen


def check(surface: str, callers: int, rounds: int) -> None:
    own = sync_backend() if surface.startswith("sync") else aio_backend(BACKENDS[surface])
    with guarded(surface, own) as client:
        client.load()
        client.call("Free")
        seen = storm(client, callers, rounds)
    assert set(seen) <= READABLE, seen
    assert seen["OK"]
    assert seen["MODEL_NOT_LOADED"]


@pytest.mark.parametrize("surface", SURFACES)
def test_twenty_callers(surface: str) -> None:
    check(surface, 20, 25)


@pytest.mark.slow
@pytest.mark.parametrize("surface", SURFACES)
def test_two_hundred_callers(surface: str) -> None:
    check(surface, 200, 10)
