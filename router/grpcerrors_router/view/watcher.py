"""Keeps the table in step with the registry.

PostgreSQL's NOTIFY only wakes the watcher up early. What it trusts is the revision: it reads what
changed after the last one it has seen, and lists everything anew when that cannot be told
(invariant 16), so that a lost notification costs `poll_interval` and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import psycopg
import structlog

from grpcerrors_router.errors import RegistryUnavailable
from grpcerrors_router.registry.store import NOTIFY_CHANNEL

if TYPE_CHECKING:
    from grpcerrors_router.clock import Clock
    from grpcerrors_router.entities import Snapshot
    from grpcerrors_router.registry.registry import NodeRegistry
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.outbox import Outbox
    from grpcerrors_router.view.table import RoutingTable

_log = structlog.get_logger("router.watcher")


class Watcher:
    """Two loops: follow the registry, and listen to it.

    `seen` is the revision that the table has followed to, `evictions_since` the latest one at which
    something was being evicted: whoever evicts waits for every router to acknowledge it.
    """

    def __init__(
        self,
        registry: NodeRegistry,
        table: RoutingTable,
        outbox: Outbox,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._table = table
        self._outbox = outbox
        self._settings = settings
        self._clock = clock
        self._wake = asyncio.Event()
        self._evicting = asyncio.Event()
        self.seen = 0
        self.evictions_since = 0

    async def follow(self) -> None:
        """Follow until cancelled."""
        while True:
            await _wait(self._wake, self._settings.poll_interval)
            try:
                await self._outbox.flush()
                await self.catch_up()
            except RegistryUnavailable as error:
                self._outbox.note_down(error, "read")
            except Exception:  # noqa: BLE001 - a router that stops following would rot silently
                _log.exception("following the registry failed; trying again")
            else:
                self._outbox.note_up("read")

    async def catch_up(self) -> None:
        """Read what has changed since the last time. Raises RegistryUnavailable."""
        batch = await self._registry.changes_since(self.seen)
        if batch is None:
            await self.relist()
            return
        for view in batch.nodes:
            self._table.apply(view)
        self.seen = batch.revision
        self._note_evictions(batch)

    async def relist(self) -> None:
        """Read everything. Raises RegistryUnavailable."""
        snapshot = await self._registry.snapshot()
        self._table.replace(snapshot)
        self.seen = snapshot.revision
        self._note_evictions(snapshot)

    def _note_evictions(self, batch: Snapshot) -> None:
        if any(load.victim and load.running(batch.now) for v in batch.nodes for load in v.loads):
            self.evictions_since = batch.revision
            self._evicting.set()

    async def evicting(self, timeout: float) -> None:
        """Wait until something is being evicted, at most `timeout` seconds."""
        await _wait(self._evicting, timeout)

    def nudge(self) -> None:
        """Look for changes now."""
        self._wake.set()

    async def listen(self) -> None:
        """Be woken by PostgreSQL until cancelled; a no-op on SQLite."""
        if not self._registry.store.is_postgres:
            return
        url = self._registry.store.url.set(drivername="postgresql")
        conninfo = url.render_as_string(hide_password=False)
        while True:
            with contextlib.suppress(psycopg.Error, OSError):
                connection = await psycopg.AsyncConnection.connect(
                    conninfo, autocommit=True, connect_timeout=3
                )
                async with connection:
                    await connection.execute(f"LISTEN {NOTIFY_CHANNEL}")
                    self.nudge()
                    async for _ in connection.notifies():
                        self.nudge()
            await self._clock.sleep(self._settings.poll_interval)


async def _wait(event: asyncio.Event, timeout: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await event.wait()
    event.clear()
