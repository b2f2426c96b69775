"""The execution of load jobs, from the claim to the published replica, and of unloads."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import grpc
import structlog

from grpcerrors_router.errors import (
    InUse,
    RegistryUnavailable,
    RouteError,
    RouterStopping,
    UnloadUnsupported,
)
from grpcerrors_router.nodes.prober import SILENT, Prober
from grpcerrors_router.registry.jobs import JobRequest, Outcome
from grpcerrors_router.tasks import stop

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator

    from grpcerrors_router.clock import Clock
    from grpcerrors_router.entities import Load, ModelSpec, Replica
    from grpcerrors_router.events import Events
    from grpcerrors_router.nodes.control import Answer, ControlPlane
    from grpcerrors_router.registry.registry import NodeRegistry
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.entries import NodeEntry, ReplicaEntry
    from grpcerrors_router.view.outbox import Outbox
    from grpcerrors_router.view.table import RoutingTable

_log = structlog.get_logger("router.load")

_LOOK = 0.05
"""Seconds between two checks whether an eviction was acknowledged."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a load for its flight.

    Attributes:
        ok: whether the model is loaded and published.
        message: why it is not.
        answered: whether `message` came from the node itself.
        try_again: whether to place the model again, on any node, since the node is not to blame.
        pause: how many seconds to wait before that.
    """

    ok: bool
    message: str = ""
    answered: bool = True
    try_again: bool = False
    pause: float = 0.0


@dataclass(slots=True)
class _Lease:
    """The lease of a job: until then, on the monotonic clock, no other router takes it over.

    `asked` is set just before the node is asked to give up the victim: it may no longer hold it.
    """

    until: float
    asked: bool = False


class JobRunner:
    """Runs load and unload jobs: sends Free and LoadModel under the lease of a job."""

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
        self._unloads: set[asyncio.Task[bool]] = set()

    async def run(
        self,
        spec: ModelSpec,
        job: Load,
        node: NodeEntry,
        victim: ReplicaEntry | None,
        *,
        asked_at: float,
    ) -> Result:
        """Run a job, and end it whatever happens.

        Args:
            spec: the model.
            job: the claimed job.
            node: the node to load it on.
            victim: the replica to evict first, if any.
            asked_at: when the job was claimed, in seconds on the monotonic clock.

        Returns:
            The result; a failure is not raised.
        """
        self._events.load_started(spec.name, node.name, job.generation)
        _log.info("loading", model=spec.name, node=node.name, generation=job.generation)
        result = Result(ok=False, message="the load was abandoned")
        try:
            result = await self._run(spec, job, node, victim, asked_at)
        finally:
            seconds = self._clock.monotonic() - asked_at
            self._events.load_finished(
                spec.name, node.name, job.generation, seconds, result.message
            )
            _log.info(
                "loaded" if result.ok else "load failed",
                model=spec.name,
                node=node.name,
                generation=job.generation,
                seconds=round(seconds, 3),
                reason=result.message,
            )
        return result

    async def _run(
        self,
        spec: ModelSpec,
        job: Load,
        node: NodeEntry,
        victim: ReplicaEntry | None,
        asked_at: float,
    ) -> Result:
        lease, outcome = self._lease(asked_at), None
        try:
            async with self._renewed(job, lease):
                result, outcome = await self._perform(spec, job, node, victim, lease)
        except RegistryUnavailable as error:
            # An eviction could not read the acknowledgements, or not record that it asks the node.
            result = Result(
                ok=False,
                message=error.details() or "",
                answered=False,
                try_again=True,
                pause=self._settings.load_backoff,
            )
        finally:
            outcome = outcome or Outcome("abandoned", freed=lease.asked)
            refused = await asyncio.shield(self._finish(job, outcome))
        if result.ok and refused:
            # The node loaded the model, but the registry did not accept the replica.
            pause = self._settings.load_backoff
            result = Result(ok=False, message=refused, try_again=True, pause=pause)
        return result

    async def _perform(
        self,
        spec: ModelSpec,
        job: Load,
        node: NodeEntry,
        victim: ReplicaEntry | None,
        lease: _Lease,
    ) -> tuple[Result, Outcome]:
        freed = Outcome()
        if victim is not None:
            refusal, freed = await self._make_room(job, node, victim, lease)
            if refusal is not None:
                return refusal, freed
        if self._clock.monotonic() >= lease.until:
            # This router was paused. A foreign node cannot refuse a load that comes too late.
            text = "the lease expired"
            return self._later(text), replace(freed, message=text)
        try:
            answer = await self._control.load(
                node.info.address, spec, job.generation, self._load_timeout(spec)
            )
        except grpc.aio.AioRpcError as error:
            result = self._error(node, error)
            if lease.asked and not result.answered:
                freed = replace(freed, freed=True)
        except (TypeError, ValueError) as error:
            result = Result(ok=False, message=f"the options do not fit ModelOptions: {error}")
        else:
            if answer.ok:
                self._prober.heard(node)
                if victim is not None and _replaces(node):
                    self._events.evicted(victim.model, node.name, victim.generation)
                done = Outcome(
                    "",
                    answer.boot_id,
                    answer.inventory,
                    freed=victim is not None,
                    options=spec.digest,
                )
                return Result(ok=True), done
            result = Result(ok=False, message=answer.message or "the node gave no reason")
        return result, self._failed(job, result, freed)

    async def _make_room(
        self, job: Load, node: NodeEntry, victim: ReplicaEntry, lease: _Lease
    ) -> tuple[Result | None, Outcome]:
        """Unload the victim once it is idle; return why that failed, or None, and the outcome."""
        if not await self._quiesced(job, victim, lease):
            victim.spared_until = self._clock.monotonic() + 3 * self._settings.quiesce_timeout
            return self._later("in use"), Outcome("in use")
        if not await self._may_ask(job, lease):
            return self._later("the lease expired"), Outcome("the lease expired")
        freed = Outcome()
        if not _replaces(node):
            try:
                answer = await self._free(node, victim.row)
            except _NotFreedError as error:
                return error.result, self._failed(job, error.result, Outcome())
            freed = Outcome("", answer.boot_id, answer.inventory, freed=True)
            self._events.evicted(victim.model, node.name, victim.generation)
        return None, freed

    def _later(self, why: str) -> Result:
        pause = self._settings.place_retry
        return Result(ok=False, message=why, try_again=True, pause=pause)

    async def _may_ask(self, job: Load, lease: _Lease) -> bool:
        """Record that the node is asked to give up the victim; return False if that came too late.

        When the lease expires without that record, other routers may use the victim again.
        """
        asked_at, until = self._clock.monotonic(), lease.until
        recorded = await self._registry.note_asked(job, self._settings.load_lease)
        if not recorded or self._clock.monotonic() >= until:
            return False
        lease.until, lease.asked = asked_at + self._settings.load_lease, True
        return True

    def unload_soon(self, replica: ReplicaEntry) -> asyncio.Task[bool]:
        """Start to unload a replica that is not in use. A refusal is not reported."""
        return self._unload_task(replica, force=False)

    async def unload(self, replica: ReplicaEntry, *, force: bool = False) -> bool:
        """Unload a replica; return False if it is already gone.

        The unload continues when its caller is cancelled.

        Args:
            replica: the replica.
            force: whether to unload it even with calls in flight.

        Raises:
            InUse: calls are in flight on some router, or the node refused.
            UnloadUnsupported: the node has no Free.
            RegistryUnavailable: the registry cannot be reached.
            RouterStopping: the router stopped meanwhile.
        """
        task = self._unload_task(replica, force=force)
        await asyncio.wait({task})
        if task.cancelled():
            raise RouterStopping
        return task.result()

    async def replace(self, replica: ReplicaEntry) -> bool:
        """Remove a replica whose options are outdated; return False if that is not possible now."""
        try:
            return await self.unload(replica)
        except UnloadUnsupported:
            if not _replaces(replica.node):
                return False
            # The next LoadModel replaces it; until then, it gets no requests.
            return await self._registry.remove_node_model(
                replica.node.name, replica.model, replica.generation
            )
        except InUse:
            return False

    def _unload_task(self, replica: ReplicaEntry, *, force: bool) -> asyncio.Task[bool]:
        task = asyncio.create_task(self._unload(replica, force=force))
        self._unloads.add(task)
        task.add_done_callback(self._unloaded)
        return task

    def _unloaded(self, task: asyncio.Task[bool]) -> None:
        self._unloads.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, RouteError):
            _log.error("unload failed: internal error", exc_info=error)

    async def _unload(self, replica: ReplicaEntry, *, force: bool) -> bool:
        node, asked_at = replica.node, self._clock.monotonic()
        request = JobRequest(
            node.name,
            replica.model,
            self._registry.router,
            0,
            self._settings.load_lease,
            replica.model,
            replica.generation,
        )
        job = await self._registry.claim_unload(request)
        if job is None:
            return False
        lease, outcome = self._lease(asked_at), None
        try:
            async with self._renewed(job, lease):
                if not force and (
                    replica.in_flight or not await self._quiesced(job, replica, lease)
                ):
                    raise InUse(replica.model, node.name)
                if not await self._may_ask(job, lease):
                    raise InUse(replica.model, node.name, "the lease of the unload expired")
                answer = await self._free(node, replica.row)
                outcome = Outcome("unloaded", answer.boot_id, answer.inventory, freed=True)
                self._events.evicted(replica.model, node.name, replica.generation)
        except _NotFreedError as error:
            lease.asked = False
            if error.unsupported:
                raise UnloadUnsupported(replica.model, node.name) from None
            why = f"the node did not unload it: {error.result.message}"
            raise InUse(replica.model, node.name, why) from None
        finally:
            outcome = outcome or Outcome("abandoned", freed=lease.asked)
            await asyncio.shield(self._finish(job, outcome))
        return True

    async def _quiesced(self, job: Load, replica: ReplicaEntry, lease: _Lease) -> bool:
        """Wait until no router has a call in flight on the victim of a job; False if that fails.

        A router that has seen the job no longer picks its victim, and acknowledges that once its
        last call there has ended (invariant 10). After the lease has expired, another job may run,
        and the victim may be in use again.
        """
        give_up = self._clock.monotonic() + self._settings.quiesce_timeout
        while self._clock.monotonic() < min(give_up, lease.until):
            if not replica.in_flight:
                others = [r for r in await self._registry.routers() if r.name != self._me]
                if all(router.seen_revision >= job.generation for router in others):
                    return not replica.in_flight and self._clock.monotonic() < lease.until
            await self._clock.sleep(_LOOK)
        return False

    @property
    def _me(self) -> str:
        return self._registry.router

    async def _free(self, node: NodeEntry, row: Replica) -> Answer:
        try:
            answer = await self._control.free(node.info.address, row, self._settings.free_timeout)
        except grpc.aio.AioRpcError as error:
            unsupported = error.code() is grpc.StatusCode.UNIMPLEMENTED
            raise _NotFreedError(self._error(node, error), unsupported=unsupported) from error
        if not answer.ok:
            message = answer.message or "Free failed without a reason"
            raise _NotFreedError(Result(ok=False, message=message))
        return answer

    def _load_timeout(self, spec: ModelSpec) -> float:
        own = spec.load_timeout
        return self._settings.load_timeout if own is None else own

    def _error(self, node: NodeEntry, error: grpc.aio.AioRpcError) -> Result:
        answered = error.code() not in SILENT
        if not answered:
            self._prober.suspect(node)
        return Result(ok=False, message=error.details() or error.code().name, answered=answered)

    def _failed(self, job: Load, result: Result, freed: Outcome) -> Outcome:
        pause = self._settings.load_backoff * 2.0 ** min(job.failures, 20)
        pause = min(pause, self._settings.load_backoff_max) * self._rng.uniform(0.75, 1.0)
        return Outcome(
            result.message,
            freed.boot_id,
            freed.inventory,
            freed.freed,
            retry_after=pause,
            answered=result.answered,
        )

    async def _finish(self, job: Load, outcome: Outcome) -> str:
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

    def _lease(self, asked_at: float) -> _Lease:
        return _Lease(asked_at + self._settings.load_lease)

    @asynccontextmanager
    async def _renewed(self, job: Load, lease: _Lease) -> AsyncIterator[None]:
        renewal = asyncio.create_task(self._renew(job, lease))
        try:
            yield
        finally:
            renewal.cancel()

    async def _renew(self, job: Load, lease: _Lease) -> None:
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

    async def close(self) -> None:
        """Stop the unloads, and end their jobs."""
        await stop(self._unloads)


class _NotFreedError(Exception):
    """A node did not unload a model; `unsupported` if it has no Free."""

    def __init__(self, result: Result, *, unsupported: bool = False) -> None:
        super().__init__(result.message)
        self.result = result
        self.unsupported = unsupported


def _replaces(node: NodeEntry) -> bool:
    """Return whether LoadModel replaces the model that the node holds.

    That is so for a foreign backend with one slot.
    """
    return node.info.foreign and node.info.slots == 1
