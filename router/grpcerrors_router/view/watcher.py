"""The watcher, which keeps the routing table in step with the registry.

It reads what changed after the last revision that it has seen, or lists everything if the registry
no longer has those changes (invariant 16). PostgreSQL's NOTIFY only wakes it up early, so a lost
notification delays it by `poll_interval` at most.
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


_JITTER = 0.1
"""Seconds by which a read may be late. A smaller difference of the clocks is none: otherwise every
time that people see would change a little with every read."""


class Watcher:
    """Follows the registry, and listens for its notifications.

    Attributes:
        seen: the revision that the table has reached.
        evictions_since: the latest revision at which an eviction ran, which this router must
            acknowledge.
        read_at: when it last read the registry, in seconds on the monotonic clock.
        offset: the registry's Unix seconds minus the monotonic clock, by that read.
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
        self.read_at = clock.monotonic()
        self.offset = clock.time() - self.read_at

    async def follow(self) -> None:
        """Follow the registry until cancelled."""
        while True:
            await _wait(self._wake, self._settings.poll_interval)
            try:
                await self._outbox.flush()
                await self.catch_up()
            except RegistryUnavailable as error:
                self._outbox.note_down(error, "read")
            except Exception:  # noqa: BLE001 - the router must not stop following
                _log.exception("following the registry failed; retrying")
            else:
                self._outbox.note_up("read")

    async def catch_up(self) -> None:
        """Apply the changes since `seen`. Raises RegistryUnavailable."""
        batch = await self._registry.changes_since(self.seen)
        if batch is None:
            await self.relist()
            return
        for view in batch.nodes:
            self._table.apply(view)
        self._note(batch)

    async def relist(self) -> None:
        """Apply a full listing of the registry. Raises RegistryUnavailable."""
        snapshot = await self._registry.snapshot()
        self._table.replace(snapshot)
        self._note(snapshot)

    def _note(self, batch: Snapshot) -> None:
        self.seen, self.read_at = batch.revision, self._clock.monotonic()
        offset = batch.now - self.read_at
        if abs(offset - self.offset) > _JITTER:
            self.offset = offset
        if any(load.victim and load.running(batch.now) for v in batch.nodes for load in v.loads):
            self.evictions_since = batch.revision
            self._evicting.set()

    async def evicting(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for an eviction."""
        await _wait(self._evicting, timeout)

    def nudge(self) -> None:
        """Look for changes now instead of after `poll_interval`."""
        self._wake.set()

    async def listen(self) -> None:
        """Listen for PostgreSQL's notifications until cancelled; return at once on SQLite."""
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
