"""Claimed jobs: their leases, and their ends."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from grpcerrors_router.errors import RegistryUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from grpcerrors_router.clock import Clock
    from grpcerrors_router.entities import Load
    from grpcerrors_router.registry.jobs import Outcome
    from grpcerrors_router.registry.registry import NodeRegistry
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.outbox import Outbox
    from grpcerrors_router.view.table import RoutingTable

_log = structlog.get_logger("router.load")


@dataclass(slots=True)
class Lease:
    """The lease of a job: until then, on the monotonic clock, no other router takes it over.

    `asked` is set just before the node is asked to give up the victim: it may no longer hold it.
    """

    until: float
    asked: bool = False


class Jobs:
    """Holds the leases of this router's jobs, and ends the jobs in the registry."""

    def __init__(
        self,
        table: RoutingTable,
        registry: NodeRegistry,
        outbox: Outbox,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._table = table
        self._registry = registry
        self._outbox = outbox
        self._settings = settings
        self._clock = clock

    def lease(self, asked_at: float) -> Lease:
        """Return the lease of a job that was claimed at `asked_at`, on the monotonic clock."""
        return Lease(asked_at + self._settings.load_lease)

    @asynccontextmanager
    async def renewed(self, job: Load, lease: Lease) -> AsyncIterator[None]:
        """Renew the lease of a job meanwhile."""
        renewal = asyncio.create_task(self._renew(job, lease))
        try:
            yield
        finally:
            renewal.cancel()

    async def _renew(self, job: Load, lease: Lease) -> None:
        started = self._clock.monotonic()
        while True:
            await self._clock.sleep(self._settings.load_lease / 3)
            asked_at = self._clock.monotonic()
            _log.info(
                "still loading",
                model=job.model,
                node=job.node,
                seconds=round(asked_at - started, 1),
            )
            with contextlib.suppress(RegistryUnavailable):
                if not await self._registry.renew_load(job, self._settings.load_lease):
                    return
                if job.victim and not lease.asked and self._clock.monotonic() >= lease.until:
                    return  # Other routers may have used the victim meanwhile.
                lease.until = asked_at + self._settings.load_lease

    async def may_ask(self, job: Load, lease: Lease) -> bool:
        """Record that the node is asked to give up the victim; return False if that came too late.

        When the lease expires without that record, other routers may use the victim again.
        """
        asked_at, until = self._clock.monotonic(), lease.until
        recorded = await self._registry.note_asked(job, self._settings.load_lease)
        if not recorded or self._clock.monotonic() >= until:
            return False
        lease.until, lease.asked = asked_at + self._settings.load_lease, True
        return True

    async def finish(self, job: Load, outcome: Outcome) -> str:
        """End the job, through the outbox; return why no replica was published, "" if one was."""
        refused = ""

        async def finish() -> None:
            nonlocal refused
            ended = await self._registry.finish_load(job, outcome)
            refused = ended or ""
            if ended is None:
                refused = "the job was taken over"
                _log.warning(
                    "ignored the end of a load whose lease had expired",
                    model=job.model,
                    node=job.node,
                    generation=job.generation,
                )

        if not outcome.message and self._outbox.down:
            self._table.publish(job, outcome.boot_id)
        what = f"end the load of {job.model} on {job.node}, generation {job.generation}"
        await self._outbox.write(what, finish)
        return refused
