"""From an error to a correction of the registry: which evidence drops a row, and when."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING

import grpc
import structlog

from grpcerrors import MODEL_MISMATCH, MODEL_NOT_LOADED, Evidence, Verdict, classify

if TYPE_CHECKING:
    from grpcerrors_router.events import Events
    from grpcerrors_router.loads.quarantine import Quarantine
    from grpcerrors_router.nodes.control import ControlPlane
    from grpcerrors_router.registry.registry import NodeRegistry
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.outbox import Outbox
    from grpcerrors_router.view.table import ReplicaEntry, RoutingTable

_log = structlog.get_logger("router.heal")

_STALE = (MODEL_NOT_LOADED, MODEL_MISMATCH)


class Reaction(Enum):
    """What an error means for the request that met it."""

    KEEP = "the error says nothing about the row"
    STALE = "the row was stale, and the request provably not executed"
    STALE_UNPROVEN = "the row was stale, but the request may have been executed"


class Reconciler:
    """Drops the row that evidence speaks against, before the caller sees the error.

    Details and text are believed. A bare status code is confirmed with the node's `Status` first:
    READY or BUSY keeps the row, anything else and no answer drop it. A mismatch drops.
    """

    def __init__(
        self,
        table: RoutingTable,
        registry: NodeRegistry,
        outbox: Outbox,
        control: ControlPlane,
        quarantine: Quarantine,
        events: Events,
        settings: Settings,
    ) -> None:
        self._table = table
        self._registry = registry
        self._outbox = outbox
        self._control = control
        self._quarantine = quarantine
        self._events = events
        self._settings = settings
        self._drops: dict[ReplicaEntry, asyncio.Task[None]] = {}
        self._questions: dict[ReplicaEntry, asyncio.Task[bool]] = {}

    async def reconcile(
        self, error: BaseException, entry: ReplicaEntry, *, timeout: float | None = None
    ) -> Reaction:
        """Correct the registry if the error is evidence against `entry`. Never raises.

        Args:
            error: what a call at the replica ended with.
            entry: the replica.
            timeout: the seconds that the caller can wait. What is not done by then continues
                without the caller.
        """
        verdict = classify(error)
        if verdict.condition not in _STALE:
            return Reaction.KEEP
        stale = Reaction.STALE if verdict.unexecuted else Reaction.STALE_UNPROVEN
        try:
            async with asyncio.timeout(timeout):
                if verdict.evidence is Evidence.CODE and entry.live and await self._holds(entry):
                    return Reaction.KEEP
                await self._drop(entry, _label(verdict))
        except TimeoutError:
            return Reaction.KEEP
        except Exception:  # noqa: BLE001 - the caller's own error matters more
            _log.exception("an error could not be judged", model=entry.model, node=entry.node.name)
            return Reaction.KEEP
        return stale

    async def _holds(self, entry: ReplicaEntry) -> bool:
        question = self._questions.get(entry)
        if question is None:
            question = asyncio.create_task(self._ask(entry))
            self._questions[entry] = question
            question.add_done_callback(lambda _: self._questions.pop(entry, None))
        return await asyncio.shield(question)

    async def _ask(self, entry: ReplicaEntry) -> bool:
        name, model = entry.node.name, entry.model
        try:
            holds = await self._control.has_model(
                entry.node.info.address, model, self._settings.status_timeout
            )
        except grpc.aio.AioRpcError:
            holds = False
        if holds:
            self._events.false_positive(model, name)
            _log.info(
                "a bare status code looked like a stale row; the node has the model",
                node=name,
                model=model,
                generation=entry.generation,
            )
            await self._outbox.write(
                "heal log",
                lambda: self._registry.log_heal(name, model, entry.generation, Evidence.CODE.value),
            )
        return holds

    async def _drop(self, entry: ReplicaEntry, evidence: str) -> None:
        if self._table.drop(entry):
            self._drops[entry] = asyncio.create_task(self._write(entry, evidence))
            self._drops[entry].add_done_callback(lambda _: self._drops.pop(entry, None))
        elif entry not in self._drops:
            self._events.late_error(entry.model, entry.node.name, entry.generation)
        pending = self._drops.get(entry)
        if pending is not None:
            await asyncio.shield(pending)

    async def _write(self, entry: ReplicaEntry, evidence: str) -> None:
        name, model, generation = entry.node.name, entry.model, entry.generation
        self._quarantine.dropped(name, model, has_served=entry.has_served)
        self._events.heal(model, name, generation, evidence)
        _log.info(
            "dropped a stale row", node=name, model=model, generation=generation, evidence=evidence
        )
        await self._outbox.write(
            f"drop {model} on {name}, generation {generation}",
            lambda: self._registry.remove_node_model(name, model, generation, evidence=evidence),
        )


def _label(verdict: Verdict) -> str:
    if verdict.condition == MODEL_MISMATCH:
        return "mismatch"
    return verdict.evidence.value if verdict.evidence is not None else "unknown"
