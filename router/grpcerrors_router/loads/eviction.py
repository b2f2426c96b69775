"""Evictions: a replica is unloaded once no router has calls in flight on it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import structlog

from grpcerrors_router.errors import InUse, RouteError, RouterStopping, UnloadUnsupported
from grpcerrors_router.registry.jobs import JobRequest, Outcome
from grpcerrors_router.tasks import stop

if TYPE_CHECKING:
    from grpcerrors_router.clock import Clock
    from grpcerrors_router.entities import Load, Replica
    from grpcerrors_router.events import Events
    from grpcerrors_router.loads.job import Jobs, Lease
    from grpcerrors_router.nodes.control import Answer, ControlPlane
    from grpcerrors_router.nodes.prober import Prober
    from grpcerrors_router.registry.registry import NodeRegistry
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.entries import NodeEntry, ReplicaEntry

_log = structlog.get_logger("router.load")

_LOOK = 0.05
"""Seconds between two checks whether an eviction was acknowledged."""


class Evictor:
    """Runs unload jobs, and evicts the victims of load jobs."""

    def __init__(
        self,
        jobs: Jobs,
        registry: NodeRegistry,
        control: ControlPlane,
        prober: Prober,
        events: Events,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._jobs = jobs
        self._registry = registry
        self._control = control
        self._prober = prober
        self._events = events
        self._settings = settings
        self._clock = clock
        self._unloads: set[asyncio.Task[bool]] = set()

    def unload_soon(self, replica: ReplicaEntry) -> asyncio.Task[bool]:
        """Start to unload a replica that is one too many. A refusal is not reported."""
        return self._unload_task(replica, "since there was one too many", force=False)

    async def unload(self, replica: ReplicaEntry, why: str, *, force: bool = False) -> bool:
        """Unload a replica; return False if it is already gone.

        The unload continues when its caller is cancelled.

        Args:
            replica: the replica.
            why: the reason, for the event `evicted`.
            force: whether to unload it even with calls in flight.

        Raises:
            InUse: calls are in flight on some router, or the node refused.
            UnloadUnsupported: the node has no Free.
            RegistryUnavailable: the registry cannot be reached.
            RouterStopping: the router stopped meanwhile.
        """
        task = self._unload_task(replica, why, force=force)
        await asyncio.wait({task})
        if task.cancelled():
            raise RouterStopping
        return task.result()

    async def replace(self, replica: ReplicaEntry, why: str) -> bool:
        """Remove a replica that is outdated; return False if that is not possible now."""
        try:
            return await self.unload(replica, why)
        except UnloadUnsupported:
            if not replaces(replica.node):
                return False
            # The next LoadModel replaces it; until then, it gets no requests.
            return await self._registry.remove_node_model(
                replica.node.name, replica.model, replica.generation
            )
        except InUse:
            return False

    def _unload_task(self, replica: ReplicaEntry, why: str, *, force: bool) -> asyncio.Task[bool]:
        task = asyncio.create_task(self._unload(replica, why, force=force))
        self._unloads.add(task)
        task.add_done_callback(self._unloaded)
        return task

    def _unloaded(self, task: asyncio.Task[bool]) -> None:
        self._unloads.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, RouteError):
            _log.error("unload failed: internal error", exc_info=error)

    async def _unload(self, replica: ReplicaEntry, why: str, *, force: bool) -> bool:
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
        lease, outcome = self._jobs.lease(asked_at), None
        try:
            async with self._jobs.renewed(job, lease):
                if not force and (
                    replica.in_flight or not await self.quiesced(job, replica, lease)
                ):
                    raise InUse(replica.model, node.name)
                if not await self._jobs.may_ask(job, lease):
                    raise InUse(replica.model, node.name, "the lease of the unload expired")
                answer = await self.free(node, replica.row)
                outcome = Outcome("unloaded", answer.boot_id, answer.inventory, freed=True)
                self._events.evicted(replica.model, node.name, replica.generation, why)
        except NotFreedError as error:
            lease.asked = error.unknown
            if error.unsupported:
                raise UnloadUnsupported(replica.model, node.name) from None
            refusal = f"the node did not unload it: {error}"
            raise InUse(replica.model, node.name, refusal) from None
        finally:
            outcome = outcome or Outcome("abandoned", freed=lease.asked)
            await asyncio.shield(self._jobs.finish(job, outcome))
        return True

    async def quiesced(self, job: Load, replica: ReplicaEntry, lease: Lease) -> bool:
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

    async def free(self, node: NodeEntry, row: Replica) -> Answer:
        """Ask a node to unload a model; raise NotFreedError if it does not confirm that."""
        try:
            answer = await self._control.free(node.info, row, self._settings.free_timeout)
        except grpc.aio.AioRpcError as error:
            answered = self._prober.answered(node, error)
            raise NotFreedError(
                error.details() or error.code().name,
                answered=answered,
                unsupported=error.code() is grpc.StatusCode.UNIMPLEMENTED,
                unknown=not answered and not await self._still_holds(node, row),
            ) from error
        if not answer.ok:
            raise NotFreedError(answer.message or "Free failed without a reason")
        return answer

    async def _still_holds(self, node: NodeEntry, row: Replica) -> bool:
        """Return whether to go on as if a node that did not answer Free still held the model.

        A node that registers reports what it holds, and refuses requests for what it does not.
        """
        if not node.info.foreign:
            return True
        try:
            return await self._control.has_model(
                node.info, row.model, self._settings.status_timeout
            )
        except grpc.aio.AioRpcError:
            return False

    async def close(self) -> None:
        """Stop the unloads, and end their jobs."""
        await stop(self._unloads)


class NotFreedError(Exception):
    """A node did not unload a model.

    Attributes:
        answered: whether the node itself answered.
        unsupported: whether it has no Free.
        unknown: whether it may have unloaded the model nevertheless. Then its replica is dropped,
            as after the death of a router that has asked the node.
    """

    def __init__(
        self,
        message: str,
        *,
        answered: bool = True,
        unsupported: bool = False,
        unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.unknown = unknown
        self.answered = answered
        self.unsupported = unsupported


def replaces(node: NodeEntry) -> bool:
    """Return whether LoadModel replaces the model that the node holds.

    That is so for a foreign backend with one slot.
    """
    return node.info.foreign and node.info.slots == 1
