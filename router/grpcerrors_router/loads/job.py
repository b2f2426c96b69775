"""One load, from the claimed job to the published row; and its counterpart, the unload."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import structlog

from grpcerrors_router.errors import InUse, RegistryUnavailable
from grpcerrors_router.nodes.prober import SILENT, Prober
from grpcerrors_router.registry.jobs import Outcome, Wish

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator

    from grpcerrors_router.clock import Clock
    from grpcerrors_router.entities import Load, ModelSpec, Replica
    from grpcerrors_router.events import Events
    from grpcerrors_router.nodes.control import ControlPlane
    from grpcerrors_router.registry.registry import NodeRegistry
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.outbox import Outbox
    from grpcerrors_router.view.table import NodeEntry, ReplicaEntry, RoutingTable

_log = structlog.get_logger("router.load")


@dataclass(frozen=True, slots=True)
class Result:
    """How a load went here. `try_again`: the node is not to blame, place the model anew.

    `answered`: the node itself said `message`.
    """

    ok: bool
    message: str = ""
    answered: bool = True
    try_again: bool = False


class JobRunner:
    """Sends Free and LoadModel under the lease of a job."""

    def __init__(  # noqa: PLR0913, PLR0917 - collaborators
        self,
        table: RoutingTable,
        registry: NodeRegistry,
        outbox: Outbox,
        control: ControlPlane,
        prober: Prober,
        events: Events,
        settings: Settings,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._table = table
        self._registry = registry
        self._outbox = outbox
        self._control = control
        self._prober = prober
        self._events = events
        self._settings = settings
        self._clock = clock
        self._rng = rng

    async def run(
        self, spec: ModelSpec, job: Load, node: NodeEntry, victim: ReplicaEntry | None
    ) -> Result:
        """Load the model for a claimed job; the job is ended whatever happens."""
        started = self._clock.monotonic()
        self._events.load_started(spec.name, node.name, job.generation)
        _log.info("loading", model=spec.name, node=node.name, generation=job.generation)
        result, outcome = Result(ok=False, message="the load was abandoned"), Outcome("abandoned")
        try:
            async with self._leased(job):
                result, outcome = await self._perform(spec, job, node, victim)
        finally:
            taken_over = not await asyncio.shield(self._finish(job, outcome))
        seconds = self._clock.monotonic() - started
        self._events.load_finished(spec.name, node.name, job.generation, seconds, result.message)
        _log.info(
            "loaded" if result.ok else "not loaded",
            model=spec.name,
            node=node.name,
            generation=job.generation,
            seconds=round(seconds, 3),
            reason=result.message,
        )
        if taken_over:
            return Result(ok=False, message="the job was taken over", try_again=True)
        return result

    async def _perform(
        self, spec: ModelSpec, job: Load, node: NodeEntry, victim: ReplicaEntry | None
    ) -> tuple[Result, Outcome]:
        freed = False
        if victim is not None:
            if not await self._quiesced(job, victim):
                return Result(ok=False, message="in use", try_again=True), Outcome("in use")
            if not _replaces(node):
                problem = await self._free(node, victim.row)
                if problem is not None:
                    return problem, self._failed(job, problem, freed=False)
                freed = True
            self._events.evicted(victim.model, node.name, victim.generation)
        try:
            answer = await self._control.load(
                node.info.address, spec, job.generation, self._load_timeout(spec)
            )
        except grpc.aio.AioRpcError as error:
            result = self._error(node, error)
        except (TypeError, ValueError) as error:
            result = Result(ok=False, message=f"the options do not fit ModelOptions: {error}")
        else:
            if answer.ok:
                self._prober.heard(node)
                freed = freed or victim is not None
                return Result(ok=True), Outcome("", answer.boot_id, answer.inventory, freed)
            result = Result(ok=False, message=answer.message or "the node gave no reason")
        return result, self._failed(job, result, freed=freed)

    async def unload(self, replica: ReplicaEntry, *, force: bool = False) -> bool:
        """Free one load of a model; False when it is gone already.

        Raises InUse when calls are in flight on any router, unless forced; RegistryUnavailable.
        """
        node = replica.node
        wish = Wish(
            node.name,
            replica.model,
            self._registry.router,
            0,
            self._settings.load_lease,
            replica.model,
            replica.generation,
        )
        job = await self._registry.claim_unload(wish)
        if job is None:
            return False
        outcome = Outcome("abandoned")
        try:
            async with self._leased(job):
                if not force and not await self._quiesced(job, replica):
                    raise InUse(replica.model, node.name)
                problem = await self._free(node, replica.row)
                if problem is None:
                    outcome = Outcome("unloaded", freed=True)
                    self._events.evicted(replica.model, node.name, replica.generation)
        finally:
            await asyncio.shield(self._finish(job, outcome))
        if problem is not None:
            raise InUse(replica.model, node.name, f"the node did not unload it: {problem.message}")
        return True

    async def _quiesced(self, job: Load, replica: ReplicaEntry) -> bool:
        """Whether no router has a call in flight on a replica that none may pick any more.

        The job has marked it. A router that has followed the registry as far as the mark picks it
        no more, and has published its counts since (invariant 10).
        """
        give_up = self._clock.monotonic() + self._settings.quiesce_timeout
        me = self._registry.router
        while not replica.in_flight:
            routers = await self._registry.routers()
            usages = await self._registry.usage()
            self._table.set_others(usage for usage in usages if usage.router != me)
            if all(r.name == me or r.seen_revision >= job.generation for r in routers):
                return not replica.in_flight and not replica.others
            if self._clock.monotonic() > give_up:
                return False
            await self._clock.sleep(0.05)
        return False

    async def _free(self, node: NodeEntry, row: Replica) -> Result | None:
        try:
            answer = await self._control.free(node.info.address, row, self._settings.free_timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED and node.info.slots == 1:
                return None
            return self._error(node, error)
        if answer.ok:
            return None
        return Result(ok=False, message=answer.message or "Free failed without a reason")

    def _load_timeout(self, spec: ModelSpec) -> float:
        own = spec.load_timeout
        return self._settings.load_timeout if own is None else own

    def _error(self, node: NodeEntry, error: grpc.aio.AioRpcError) -> Result:
        answered = error.code() not in SILENT
        if not answered:
            self._prober.suspect(node)
        return Result(ok=False, message=error.details() or error.code().name, answered=answered)

    def _failed(self, job: Load, result: Result, *, freed: bool) -> Outcome:
        pause = self._settings.load_backoff * 2.0 ** min(job.failures, 20)
        pause = min(pause, self._settings.load_backoff_max) * self._rng.uniform(0.75, 1.0)
        return Outcome(result.message, freed=freed, retry_after=pause)

    async def _finish(self, job: Load, outcome: Outcome) -> bool:
        """End the job; False when it was taken over. Waits in the outbox if it must."""
        current = True

        async def finish() -> None:
            nonlocal current
            current = await self._registry.finish_load(job, outcome)
            if not current:
                _log.warning(
                    "a load was taken over; its end changes nothing",
                    model=job.model,
                    node=job.node,
                    generation=job.generation,
                )

        if not outcome.message and self._outbox.down:
            self._table.publish(job, outcome.boot_id)
        await self._outbox.write(f"end of the load of {job.model} on {job.node}", finish)
        return current

    @asynccontextmanager
    async def _leased(self, job: Load) -> AsyncIterator[None]:
        renewal = asyncio.create_task(self._renew(job))
        try:
            yield
        finally:
            renewal.cancel()

    async def _renew(self, job: Load) -> None:
        while True:
            await self._clock.sleep(self._settings.load_lease / 3)
            _log.info(
                "still loading",
                model=job.model,
                node=job.node,
                seconds=round(self._clock.time() - job.started_at, 1),
            )
            with contextlib.suppress(RegistryUnavailable):
                if not await self._registry.renew_load(job, self._settings.load_lease):
                    return


def _replaces(node: NodeEntry) -> bool:
    """Whether LoadModel itself replaces what the node holds: a foreign backend with one slot."""
    return node.info.foreign and node.info.slots == 1
