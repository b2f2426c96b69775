"""The feed: the fleet's state, built once for all viewers, and only while somebody looks."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from grpcerrors_router.tasks import stop
from grpcerrors_router.web.window import View, difference, message, view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from grpcerrors_router.state.picture import Picture
    from grpcerrors_router.web.window import Window

INTERVAL = 1.0
"""Seconds between two states."""

SHARE, LONGEST = 0.05, 5.0
"""The share of the time that the event loop may spend on states, and the longest interval: the
states of a large fleet are built less often."""

VIEWERS_LIMIT = 50
"""Viewers at a time."""

_log = structlog.get_logger("router.page")


class Feed:
    """Gives every viewer the newest state.

    A viewer that reads slowly misses states, and never more than one waits for it.

    Args:
        build: returns the fleet's state.

    Attributes:
        version: how many states were built.
        newest: the newest state; None before the first viewer has come.
    """

    def __init__(self, build: Callable[[], Awaitable[Picture]]) -> None:
        self._build = build
        self._viewers = 0
        self._cost = 0.0
        self.version = 0
        self.newest: Picture | None = None
        self._views: dict[Window, View] = {}
        self._changed = asyncio.Condition()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def viewers(self) -> int:
        """How many are watching."""
        return self._viewers

    @property
    def is_full(self) -> bool:
        """Whether as many are watching as the router serves."""
        return self._viewers >= VIEWERS_LIMIT

    def nudge(self) -> None:
        """Build the next state now, since something was changed."""
        self._hurry.set()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Count a viewer, and build states meanwhile."""
        self._viewers += 1
        if self._task is None:
            self.newest = None
            self._task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._viewers -= 1
            if not self._viewers and self._task is not None:
                task, self._task = self._task, None
                await stop([task])

    async def updates(self, window: Window) -> AsyncIterator[str]:
        """Yield what changes in a window, as JSON, until the feed is closed."""
        seen, before = -1, View()
        while True:
            async with self._changed:
                await self._changed.wait_for(
                    lambda: self._closed or (self.newest is not None and self.version != seen)  # noqa: B023
                )
            if self._closed or self.newest is None:
                return
            seen, picture = self.version, self.newest
            after = self._view(picture, window)
            changed, gone = difference(before, after)
            before = after
            yield message(picture.fleet.now, changed, gone)

    def _view(self, picture: Picture, window: Window) -> View:
        if window not in self._views:
            started = time.thread_time()
            self._views[window] = view(picture, window)
            self._cost += time.thread_time() - started
        return self._views[window]

    async def _run(self) -> None:
        while True:
            started = time.thread_time()
            try:
                picture = await self._build()
            except Exception:  # noqa: BLE001 - the page must not stop
                _log.exception("the fleet's state cannot be built; retrying")
            else:
                async with self._changed:
                    self.newest, self._views = picture, {}
                    self.version += 1
                    self._changed.notify_all()
            cost, self._cost = self._cost + time.thread_time() - started, 0.0
            await self._pause(min(max(INTERVAL, cost / SHARE), LONGEST))

    async def _pause(self, seconds: float) -> None:
        self._hurry.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass

    async def close(self) -> None:
        """End all updates."""
        self._closed = True
        async with self._changed:
            self._changed.notify_all()
        if self._task is not None:
            task, self._task = self._task, None
            await stop([task])
