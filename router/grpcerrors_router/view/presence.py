"""The presence of this router in the registry that it shares with others.

It signs in periodically, acknowledges evictions, records which nodes it has heard and which
replicas are in use, and prunes old rows.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from grpcerrors_router.entities import Use
from grpcerrors_router.errors import NameTaken, RegistryUnavailable

if TYPE_CHECKING:
    from grpcerrors_router.clock import Clock
    from grpcerrors_router.registry.registry import NodeRegistry
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.outbox import Outbox
    from grpcerrors_router.view.table import RoutingTable
    from grpcerrors_router.view.watcher import Watcher

_log = structlog.get_logger("router.presence")

_ACKNOWLEDGE_INTERVAL = 0.05
"""Seconds between two checks while another router waits for an acknowledgement."""


class Presence:
    """Acknowledges evictions at once, signs in every `lease_flush`, and prunes now and then."""

    def __init__(
        self,
        registry: NodeRegistry,
        table: RoutingTable,
        watcher: Watcher,
        outbox: Outbox,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._table = table
        self._watcher = watcher
        self._outbox = outbox
        self._settings = settings
        self._clock = clock
        self._said = -1
        self._signed_at = float("-inf")
        self._noted_at = clock.monotonic()
        self._rejoining = asyncio.Lock()

    async def enter(self) -> None:
        """Sign in for the first time.

        A killed router of the same name counts as alive until its lease expires; this waits for it.

        Raises:
            NameTaken: the other router renewed its lease meanwhile, so it is alive.
            RegistryUnavailable: the registry cannot be reached.
        """
        first = None
        while True:
            now = self._clock.monotonic()
            other = await self._registry.sign_in(self._watcher.seen, self._settings.lease_ttl)
            if other is None:
                self._signed_at = now
                return
            if first is not None and other != first:
                me = self._registry.router
                raise NameTaken("router", me, "another router", "this one")
            first = other
            await self._clock.sleep(self._settings.lease_flush)

    def is_counted(self) -> bool:
        """Return whether other routers wait for this one before they evict a replica.

        While this router cannot reach the registry, it cannot know, and continues from memory.
        """
        expires_at = self._signed_at + self._settings.lease_ttl
        return self._clock.monotonic() < expires_at or self._outbox.down

    async def rejoin(self) -> None:
        """Renew an expired lease, and catch up with what other routers did meanwhile."""
        async with self._rejoining:
            if not self.is_counted():
                try:
                    await self.say()
                except RegistryUnavailable as error:
                    self._outbox.note_down(error, "write")

    async def run(self) -> None:
        """Sign in and acknowledge evictions until cancelled."""
        while True:
            try:
                await self.say()
                await self._note()
            except RegistryUnavailable as error:
                self._outbox.note_down(error, "write")
            except Exception:  # noqa: BLE001 - the other routers must not forget this one
                _log.exception("sign-in failed; retrying")
            busy = self._table.clear_of(self._watcher.seen) < self._watcher.seen
            unsaid = self._watcher.evictions_since > self._said
            await self._watcher.evicting(
                _ACKNOWLEDGE_INTERVAL if busy or unsaid else self._settings.lease_flush
            )

    async def say(self) -> None:
        """Sign in, with the revision that is acknowledged. Raises RegistryUnavailable."""
        seen = self._table.clear_of(self._watcher.seen)
        now = self._clock.monotonic()
        is_news = seen > self._said and self._watcher.evictions_since > self._said
        if is_news or now - self._signed_at >= self._settings.lease_flush:
            had_expired = not self.is_counted()
            other = await self._registry.sign_in(seen, self._settings.lease_ttl)
            if had_expired:
                await self._watcher.catch_up()
            if other is not None:
                _log.error("another router has taken this name", router=self._registry.router)
            self._outbox.note_up("write")
            self._said, self._signed_at = seen, now

    async def _note(self) -> None:
        now = self._clock.monotonic()
        since = self._noted_at
        if now - since < self._settings.lease_flush:
            return
        heard = {
            node.name: now - node.heard_at
            for node in self._table.nodes.values()
            if node.heard_at > since
        }
        uses = [
            Use(
                entry.generation,
                entry.in_flight if entry.node.info.foreign else entry.reported,
                max(0.0, now - entry.last_used),
            )
            for entry in self._table.take_touched()
        ]
        await self._registry.note(heard, uses)
        self._noted_at = now

    async def prune(self) -> None:
        """Prune the registry every `prune_interval` until cancelled."""
        while True:
            await self._clock.sleep(self._settings.prune_interval)
            try:
                await self._registry.prune(
                    node_retention=self._settings.node_retention,
                    heal_retention=self._settings.heal_retention,
                )
            except RegistryUnavailable as error:
                self._outbox.note_down(error, "write")
            except Exception:  # noqa: BLE001 - the tables must not grow without limit
                _log.exception("pruning the registry failed; retrying")

    async def exit(self) -> None:
        """Sign out. Raises RegistryUnavailable."""
        await self._registry.sign_out()
