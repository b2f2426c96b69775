"""The reconciler, which decides when an error is evidence that a replica is stale."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING

import grpc
import structlog

from grpcerrors import (
    MODEL_LOADING,
    MODEL_MISMATCH,
    MODEL_NOT_LOADED,
    Verdict,
    classify,
    held_model,
)
from grpcerrors_router.calls.causes import RECONNECT, Belief, Cause, Causes, cause_of
from grpcerrors_router.nodes.prober import comes_from_node
from grpcerrors_router.tasks import stop

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from grpcerrors_router.clock import Clock
    from grpcerrors_router.events import Events
    from grpcerrors_router.loads.quarantine import Quarantine
    from grpcerrors_router.nodes.control import ControlPlane
    from grpcerrors_router.nodes.prober import Prober
    from grpcerrors_router.registry.registry import NodeRegistry
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.entries import ReplicaEntry
    from grpcerrors_router.view.outbox import Outbox
    from grpcerrors_router.view.table import RoutingTable

_log = structlog.get_logger("router.heal")

_STALE = (MODEL_NOT_LOADED, MODEL_MISMATCH)

_LOADING_PAUSE = 1.0
_LOADING_PAUSE_MIN, _LOADING_PAUSE_MAX = 0.05, 30.0
"""Seconds after which a node that is loading a model is tried again: those that it asks for."""

# Codes that come from a handler. The others may come from gRPC or from an interceptor.
_FROM_HANDLERS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.DATA_LOSS,
    }
)


class Reaction(Enum):
    """What an error means for the request that met it."""

    KEEP = "the replica stays"
    LOADING = "the node is loading the model, and has provably not executed the request"
    STALE = "the replica was stale, and the request provably not executed"
    STALE_UNPROVEN = "the replica was stale, but the request may have been executed"


class Reconciler:
    """Drops a replica on evidence that it is stale, before the caller sees the error.

    A `held` trailer keeps the replica, whatever else the error says. So does an error that says
    that the node is loading the model. A typed error drops it. Words
    and bare codes are ignored if the backend speaks the contract. Otherwise the node's `Status`
    decides: UNINITIALIZED and ERROR drop the replica, READY, BUSY and no answer keep it. A node
    without `Status` is believed once per cause (see `Causes`).
    """

    def __init__(  # noqa: PLR0913 - collaborators
        self,
        *,
        table: RoutingTable,
        registry: NodeRegistry,
        outbox: Outbox,
        control: ControlPlane,
        prober: Prober,
        quarantine: Quarantine,
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
        self._quarantine = quarantine
        self._events = events
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self.causes = Causes(settings, clock)
        self._drops: dict[ReplicaEntry, asyncio.Task[None]] = {}
        self._questions: dict[tuple[ReplicaEntry, Cause], asyncio.Task[bool]] = {}
        self._confirmations: dict[ReplicaEntry, asyncio.Task[None]] = {}

    async def reconcile(
        self,
        error: grpc.aio.AioRpcError,
        entry: ReplicaEntry,
        method: str,
        *,
        timeout: float | None = None,
        request_id: Callable[[], str] = str,
    ) -> Reaction:
        """Correct the registry if the error is evidence against `entry`. Never raises.

        Args:
            error: the error of a call on the replica.
            entry: the replica.
            method: the path of the RPC.
            timeout: how many seconds the caller can wait; None for no limit. What is not done by
                then continues in the background.
            request_id: returns the id of the request; called only if something is logged.

        Returns:
            What the error means for the request; KEEP if that was not known in time.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._judge(error, entry, method, request_id)
        except TimeoutError:
            return Reaction.KEEP
        except Exception:  # noqa: BLE001 - the caller's own error matters more
            _log.exception("reconcile failed", model=entry.model, node=entry.node.name)
            return Reaction.KEEP

    def served(self, entry: ReplicaEntry, method: str) -> None:
        """Note that the replica has answered a request."""
        if entry.loading_until:
            self._table.note_loading(entry, 0.0)
        self.causes.served(entry, method)
        self._proved(entry, "answer")

    async def _judge(
        self,
        error: grpc.aio.AioRpcError,
        entry: ReplicaEntry,
        method: str,
        request_id: Callable[[], str],
    ) -> Reaction:
        verdict = classify(error)
        held = held_model(error) is not None
        if held or verdict.typed:
            self.causes.note_typed(entry)
            self._prober.heard(entry.node)
        if not held and verdict.condition == MODEL_LOADING and verdict.unexecuted:
            return self._loading(entry, verdict.retry_after)
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            self._events.exhausted(entry.model, entry.node.name, error.details() or "")
        if held or verdict.condition not in _STALE:
            if error.code() in _FROM_HANDLERS:
                self._proved(entry, "error")
            return Reaction.KEEP
        if not verdict.typed and entry.live:
            cause = cause_of(method, error.code(), error.details() or "")
            if not await self._confirmed(entry, verdict, cause, request_id):
                return Reaction.KEEP
        await self._drop(entry, _label(verdict), request_id)
        return Reaction.STALE if verdict.unexecuted else Reaction.STALE_UNPROVEN

    def _loading(self, entry: ReplicaEntry, retry_after: float | None) -> Reaction:
        """Note that the node is loading the model, and until when requests leave it alone."""
        pause = _LOADING_PAUSE if retry_after is None else retry_after
        pause = min(max(pause, _LOADING_PAUSE_MIN), _LOADING_PAUSE_MAX)
        # Never sooner than the node asks for.
        pause *= self._rng.uniform(1.0, 1.25)
        self._table.note_loading(entry, self._clock.monotonic() + pause)
        return Reaction.LOADING

    def _proved(self, entry: ReplicaEntry, proof: str) -> None:
        """Note that the node holds the model: its handler answered."""
        if not entry.has_served:
            entry.has_served = True
            self._quarantine.forgive(entry.node.name, entry.model)
        entry.confirmed_at, entry.proof = self._clock.monotonic(), proof

    async def close(self) -> None:
        """Stop the confirmations, and finish the drops."""
        await stop((*self._questions.values(), *self._confirmations.values()))
        if self._drops:
            await asyncio.wait(self._drops.values())

    # Words and bare codes

    async def _confirmed(
        self, entry: ReplicaEntry, verdict: Verdict, cause: Cause, request_id: Callable[[], str]
    ) -> bool:
        """Return whether words or a bare code are right. Asks once at a time for each cause."""
        if self.causes.is_typed(entry) or self.causes.is_doubted(entry, cause):
            self._events.false_positive(entry.model, entry.node.name)
            return False
        question = self._questions.get((entry, cause))
        if question is None:
            question = asyncio.create_task(self._ask(entry, verdict, cause, request_id))
            self._questions[entry, cause] = question
            question.add_done_callback(lambda _: self._questions.pop((entry, cause), None))
        return await asyncio.shield(question)

    async def _ask(
        self, entry: ReplicaEntry, verdict: Verdict, cause: Cause, request_id: Callable[[], str]
    ) -> bool:
        node, model = entry.node, entry.model
        try:
            holds = await self._control.has_model(node.info, model, self._settings.status_timeout)
        except grpc.aio.AioRpcError as error:
            if self._prober.denies(node, error):
                self._events.unconfirmed(model, node.name)
                return False
            if comes_from_node(error):
                return await self._believed(entry, verdict, cause, request_id)
            # A busy node proves nothing; the next such error asks again.
            self._prober.suspect(node)
            self._events.unconfirmed(model, node.name)
            return False
        if not holds:
            return True
        if verdict.condition == MODEL_MISMATCH and node.info.foreign:
            # A foreign node reports that it is ready, but not with which model.
            return await self._believed(entry, verdict, cause, request_id)
        self.causes.contradicted(entry, cause)
        self._events.false_positive(model, node.name)
        self._proved(entry, "status")
        _log.info(
            "kept a replica: the error says not loaded, but the node holds the model",
            node=node.name,
            model=model,
            generation=entry.generation,
            cause=cause,
            request_id=request_id(),
        )
        return False

    async def _believed(
        self, entry: ReplicaEntry, verdict: Verdict, cause: Cause, request_id: Callable[[], str]
    ) -> bool:
        """Return whether to drop a replica on a cause that its node cannot settle."""
        belief = self.causes.believe(entry, cause)
        if belief is Belief.BELIEVED:
            return True
        node, model, generation = entry.node.name, entry.model, entry.generation
        self._events.false_positive(model, node)
        if belief is Belief.DOUBTED:
            self._proved(entry, "error")
            _log.warning(
                "kept a replica: the same error returned right after a reload",
                node=node,
                model=model,
                generation=generation,
                cause=cause,
                request_id=request_id(),
            )
            await self._outbox.write(
                f"log that {model} was kept on {node}",
                lambda: self._registry.log_heal(node, model, generation, _label(verdict), "kept"),
            )
        return False

    # Lost connections

    async def confirm(self, entry: ReplicaEntry, connection: int) -> None:
        """Ask a foreign node that has reconnected whether it still holds a replica.

        It may be a new process. The replica is dropped unless `Status` says READY or BUSY. A node
        without `Status` is taken for a new process, unless it reconnects again and again. If
        the node does not answer, the replica is kept, and the next request asks again.

        Args:
            entry: the replica.
            connection: the number of the current connection, as in `ReplicaEntry.connection`.
        """
        task = self._confirmations.get(entry)
        if task is None:
            task = asyncio.create_task(self._confirm(entry, connection))
            self._confirmations[entry] = task
            task.add_done_callback(lambda _: self._confirmations.pop(entry, None))
        await asyncio.shield(task)

    async def _confirm(self, entry: ReplicaEntry, connection: int) -> None:
        node, model = entry.node, entry.model
        self.causes.note_restart(entry)
        try:
            holds = await self._control.has_model(node.info, model, self._settings.status_timeout)
        except grpc.aio.AioRpcError as error:
            if self._prober.denies(node, error) or not comes_from_node(error):
                self._prober.suspect(node)
                self._events.unconfirmed(model, node.name)
                return
            holds = self.causes.believe(entry, RECONNECT) is not Belief.BELIEVED
        entry.connection = connection
        if not holds:
            await self._drop(entry, "reconnect", str)

    # Dropping

    async def _drop(
        self, entry: ReplicaEntry, evidence: str, request_id: Callable[[], str]
    ) -> None:
        if self._table.drop(entry):
            self._drops[entry] = asyncio.create_task(self._write(entry, evidence, request_id()))
            self._drops[entry].add_done_callback(lambda _: self._drops.pop(entry, None))
        elif entry not in self._drops:
            self._events.late_error(entry.model, entry.node.name, entry.generation)
        pending = self._drops.get(entry)
        if pending is not None:
            await asyncio.shield(pending)

    async def _write(self, entry: ReplicaEntry, evidence: str, request_id: str) -> None:
        name, model, generation = entry.node.name, entry.model, entry.generation
        self._quarantine.dropped(name, model, has_served=entry.has_served)
        _log.info(
            "dropped a stale replica",
            node=name,
            model=model,
            generation=generation,
            evidence=evidence,
            request_id=request_id,
        )

        async def remove() -> None:
            registry = self._registry
            if self._table.holds(name, model, generation):
                # The node has loaded it again, as the same generation, while the registry was away.
                await registry.log_heal(name, model, generation, evidence, "reloaded")
            # A heartbeat may already have removed and counted it.
            elif not await registry.remove_node_model(name, model, generation, evidence=evidence):
                return
            self._events.heal(model, name, generation, evidence, request_id)

        await self._outbox.write(f"drop {model} on {name}, generation {generation}", remove)


def _label(verdict: Verdict) -> str:
    if verdict.condition == MODEL_MISMATCH:
        return "mismatch"
    return verdict.evidence.value if verdict.evidence is not None else "unknown"
