"""The execution of load jobs, from the claim to the published replica."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import grpc
import structlog

from grpcerrors import MODEL_LOADING, classify
from grpcerrors_router.errors import RegistryUnavailable
from grpcerrors_router.loads.eviction import NotFreedError, replaces
from grpcerrors_router.registry.jobs import Outcome

if TYPE_CHECKING:
    import random

    from grpcerrors_router.clock import Clock
    from grpcerrors_router.entities import Load, ModelSpec
    from grpcerrors_router.events import Events
    from grpcerrors_router.loads.eviction import Evictor
    from grpcerrors_router.loads.job import Jobs, Lease
    from grpcerrors_router.nodes.control import ControlPlane
    from grpcerrors_router.nodes.prober import Prober
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.entries import NodeEntry, ReplicaEntry

_log = structlog.get_logger("router.load")


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a load for its flight.

    Attributes:
        ok: whether the model is loaded and published.
        message: why it is not.
        answered: whether `message` came from the node itself.
        try_again: whether to place the model again, on any node, since the node is not to blame.
        pause: how many seconds to wait before that.
        loading: whether the node is loading a model for someone else.
    """

    ok: bool
    message: str = ""
    answered: bool = True
    try_again: bool = False
    pause: float = 0.0
    loading: bool = False


class LoadRunner:
    """Runs load jobs: evicts the victim, and sends LoadModel, under the lease of the job."""

    def __init__(
        self,
        jobs: Jobs,
        evictor: Evictor,
        control: ControlPlane,
        prober: Prober,
        events: Events,
        settings: Settings,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._jobs = jobs
        self._evictor = evictor
        self._control = control
        self._prober = prober
        self._events = events
        self._settings = settings
        self._clock = clock
        self._rng = rng

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
        result = Result(ok=False, message="the load was abandoned", try_again=True)
        try:
            result = await self._run(spec, job, node, victim, asked_at)
        finally:
            seconds = self._clock.monotonic() - asked_at
            self._events.load_finished(
                spec.name,
                node.name,
                job.generation,
                seconds,
                result.message,
                postponed=result.try_again,
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
        lease, outcome = self._jobs.lease(asked_at), None
        try:
            async with self._jobs.renewed(job, lease):
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
            refused = await asyncio.shield(self._jobs.finish(job, outcome))
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
        lease: Lease,
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
                node.info, spec, job.generation, self._load_timeout(spec)
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
                if victim is not None and replaces(node):
                    self._evicted(victim, job)
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
        self, job: Load, node: NodeEntry, victim: ReplicaEntry, lease: Lease
    ) -> tuple[Result | None, Outcome]:
        """Unload the victim once it is idle; return why that failed, or None, and the outcome."""
        if not await self._evictor.quiesced(job, victim, lease):
            victim.spared_until = self._clock.monotonic() + 3 * self._settings.quiesce_timeout
            return self._later("in use"), Outcome("in use")
        if not await self._jobs.may_ask(job, lease):
            return self._later("the lease expired"), Outcome("the lease expired")
        freed = Outcome()
        if not replaces(node):
            try:
                answer = await self._evictor.free(node, victim.row)
            except NotFreedError as error:
                result = Result(ok=False, message=str(error), answered=error.answered)
                return result, self._failed(job, result, Outcome(freed=error.unknown))
            freed = Outcome("", answer.boot_id, answer.inventory, freed=True)
            self._evicted(victim, job)
        return None, freed

    def _evicted(self, victim: ReplicaEntry, job: Load) -> None:
        why = f"to make room for {job.model}"
        self._events.evicted(victim.model, victim.node.name, victim.generation, why)

    def _later(self, why: str, pause: float = 0.0) -> Result:
        pause = pause or self._settings.place_retry
        return Result(ok=False, message=why, try_again=True, pause=pause)

    def _load_timeout(self, spec: ModelSpec) -> float:
        own = spec.load_timeout
        return self._settings.load_timeout if own is None else own

    def _error(self, node: NodeEntry, error: grpc.aio.AioRpcError) -> Result:
        answered = self._prober.answered(node, error)
        verdict = classify(error)
        if verdict.condition == MODEL_LOADING and verdict.unexecuted:
            # Someone else loads a model there. The node is not to blame, and this job is over.
            pause = min(verdict.retry_after or 1.0, self._settings.load_backoff_max)
            return replace(
                self._later(error.details() or "the node is loading", pause), loading=True
            )
        said = node.denial or error.details() or error.code().name
        return Result(ok=False, message=said, answered=answered)

    def _failed(self, job: Load, result: Result, freed: Outcome) -> Outcome:
        if result.try_again:
            return replace(freed, message=result.message)
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
