"""The prober, which finds out which nodes answer, and never deletes anything."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import structlog

from grpcerrors import classify
from grpcerrors_protocol.tls import hint
from grpcerrors_router.tasks import stop

if TYPE_CHECKING:
    from grpcerrors_router.clock import Clock
    from grpcerrors_router.nodes.client import NodeClient
    from grpcerrors_router.settings import Settings
    from grpcerrors_router.view.entries import NodeEntry
    from grpcerrors_router.view.table import RoutingTable

_log = structlog.get_logger("router.nodes")

_ADD_WITH_TLS = "add it with add-node --node-tls"

SILENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
)
"""Codes that need not come from the node."""


def comes_from_node(error: grpc.aio.AioRpcError) -> bool:
    """Return whether an error shows that the node is there: by its code, or since it is typed."""
    return error.code() not in SILENT or classify(error).typed


class Prober:
    """Distinguishes busy nodes from those that are gone, with one probe at a time per node.

    A heartbeat or a finished call counts as an answer, so a node in use is not probed. A silent
    node is asked for its Health. If that takes long, a new connection decides: a process that
    accepts it is *busy* and is picked last; one that does not is *suspect*, and not picked until it
    answers. Its replicas stay in the registry either way (invariant 14).
    """

    def __init__(
        self, table: RoutingTable, nodes: NodeClient, settings: Settings, clock: Clock
    ) -> None:
        self._table = table
        self._nodes = nodes
        self._settings = settings
        self._clock = clock
        self._probes: dict[str, asyncio.Task[bool]] = {}
        self._questions: dict[str, asyncio.Task[bool | None]] = {}

    def is_fresh(self, node: NodeEntry) -> bool:
        """Return whether the node was heard so recently that it needs no probe."""
        return node.fresh_until > self._clock.monotonic()

    def heard(self, node: NodeEntry) -> None:
        """Note that the node answered."""
        node.heard_at, node.trouble = self._clock.monotonic(), ""
        node.fresh_until = node.heard_at + self._settings.fresh_for
        if node.busy or not node.reachable:
            self._table.set_state(node, reachable=True, busy=False)

    def reported(self, node: NodeEntry) -> None:
        """Note a heartbeat. It shows that the node lives, but not that the router reaches it."""
        if node.reachable:
            self.heard(node)
        else:
            self._start(node)

    def answered(self, node: NodeEntry, error: grpc.aio.AioRpcError) -> bool:
        """Return whether the error of the router's own call comes from the node.

        If not, the node is suspected.
        """
        self.denies(node, error)
        if comes_from_node(error):
            return True
        self.suspect(node)
        return False

    def denies(self, node: NodeEntry, error: grpc.aio.AioRpcError) -> bool:
        """Return whether the error of the router's own call says that the node refuses its token.

        Such a node is not picked until it answers; its replicas stay, since nothing is known about
        them.
        """
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
            return False
        why = self._nodes.tokens.refusal(node.info)
        if node.denial != why:
            _log.warning("a node refuses the router", node=node.name, why=why)
        self._table.set_denial(node, why)
        return True

    def denied(self, node: NodeEntry) -> None:
        """Note that a request was denied; find out whether the node refuses the router, too."""
        self._start(node)

    def suspect(self, node: NodeEntry) -> None:
        """Note that a call did not reach the node, so it is probed before it is picked again."""
        node.fresh_until = 0.0

    def missed(self, node: NodeEntry) -> None:
        """Note that a call exceeded its deadline; probe the node unless it answers other calls."""
        if self._clock.monotonic() - node.heard_at >= self._settings.silent_after:
            node.fresh_until = 0.0

    async def probe_health(self, node: NodeEntry) -> bool:
        """Return whether the node may be picked; probe it first if it was silent."""
        return self.is_fresh(node) or await asyncio.shield(self._start(node))

    def _start(self, node: NodeEntry) -> asyncio.Task[bool]:
        probe = self._probes.get(node.name)
        if probe is None:
            probe = asyncio.create_task(self._probe(node))
            self._probes[node.name] = probe
            probe.add_done_callback(lambda _: self._probes.pop(node.name, None))
        return probe

    async def _probe(self, node: NodeEntry) -> bool:
        settings = self._settings
        node.probed_at = self._clock.monotonic()
        question = self._questions.get(node.name)
        if question is None:
            question = asyncio.create_task(self._ask(node))
            self._questions[node.name] = question
            question.add_done_callback(lambda _: self._questions.pop(node.name, None))
        await asyncio.wait({question}, timeout=settings.probe_patience)
        there = question.result() if question.done() else None
        node.refuses = there is False
        if there is None:
            channels = self._nodes.channels
            there = await channels.connects(node.info, settings.connect_timeout)
        if question.done() and question.result():
            return True
        if there:
            node.fresh_until = self._clock.monotonic() + settings.busy_for
        if (node.reachable, node.busy) != (there, True):
            if there:
                _log.info("node is busy", node=node.name)
            else:
                _log.info("node does not answer", node=node.name, why=node.trouble)
            self._table.set_state(node, reachable=there, busy=True)
        return there

    async def _ask(self, node: NodeEntry) -> bool | None:
        """Return whether the node answers Health, with any result.

        Returns None if it takes too long, or if the node has moved to another address meanwhile.
        """
        info = node.info
        answers: bool | None = True
        refuses = False
        try:
            await self._nodes.control.health(info, self._settings.probe_timeout)
        except grpc.aio.AioRpcError as error:
            refuses = self.denies(node, error)
            if not comes_from_node(error):
                answers = None if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else False
                said = error.details() or ""
                node.trouble = hint(said, tls=info.tls, instead=_ADD_WITH_TLS) or said
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            answers = False  # the channel was closed, since no node has the address any more
        if node.info.address != info.address:
            return None
        if answers:
            self.heard(node)
            if not refuses:
                self._table.set_denial(node, "")
        return answers

    async def look(self) -> None:
        """Probe the silent nodes, and wait a little for those that may answer at once.

        Of nodes about which nothing is known yet, it waits for the end of the probe.
        """
        now, settings = self._clock.monotonic(), self._settings
        new, started = [], []
        for node in self._table.nodes.values():
            losses = self._nodes.channels.losses(node.info)
            if node.losses != losses:
                node.losses = losses
                self.suspect(node)
            if not self.is_fresh(node) and now - node.probed_at >= settings.busy_for:
                known = node.was_heard or node.probed_at
                probe = self._start(node)
                started.append(probe)
                if not known:
                    new.append(probe)
        if started:
            await asyncio.wait(started, timeout=settings.probe_patience)
        if new:
            await asyncio.wait(new, timeout=settings.probe_patience + settings.connect_timeout)

    async def watch(self) -> None:
        """Watch the nodes until cancelled.

        Probes suspect nodes until they answer, those that refuse the router until they do not, and
        silent nodes with calls in flight. Closes the
        channels to addresses that no node has any more.
        """
        while True:
            await self._clock.sleep(self._settings.watch_interval)
            try:
                self._nodes.channels.follow()
                await self._nodes.channels.retain(self._table.addresses())
                for node in self._due():
                    node.fresh_until = 0.0
                    self._start(node)
            except Exception:  # noqa: BLE001 - the router must not stop watching
                _log.exception("watching the nodes failed; retrying")

    def _due(self) -> list[NodeEntry]:
        """Return the nodes to probe now."""
        now, settings = self._clock.monotonic(), self._settings
        due = []
        for node in self._table.nodes.values():
            if node.denial:
                if now - node.probed_at >= settings.probe_interval:
                    due.append(node)
                continue
            if not node.reachable:
                wait = settings.probe_interval
            elif any(replica.in_flight for replica in node.replicas.values()):
                wait = settings.silent_after
            else:
                continue
            if now - max(node.heard_at, node.probed_at) >= wait:
                due.append(node)
        return due

    async def close(self) -> None:
        """Stop the probes."""
        await stop((*self._probes.values(), *self._questions.values()))
