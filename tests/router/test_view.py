"""The registry in memory: the outbox, the presence, and what is pruned."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import Events, ModelSpec, RegistryUnavailable, RoutingTable, Settings
from grpcerrors_router.entities import Node as Row
from grpcerrors_router.entities import NodeView, Replica
from grpcerrors_router.loads.quarantine import Quarantine
from grpcerrors_router.view.outbox import Outbox
from tests.router.conftest import QUICK, fleet
from tests.router.support.clock import HandClock
from tests.router.support.nodes import Node

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Away:
    """A registry that cannot be reached until `back` is set."""

    def __init__(self) -> None:
        self.back = False
        self.applied: list[str] = []

    def change(self, name: str) -> Callable[[], Awaitable[None]]:
        async def apply() -> None:
            if not self.back:
                raise RegistryUnavailable("away")
            self.applied.append(name)

        return apply


async def test_the_same_change_waits_once() -> None:
    outbox, registry = Outbox(Events()), Away()
    for _ in range(300):
        await outbox.write("drop m on a, generation 7", registry.change("m"))
    await outbox.write("drop n on a, generation 8", registry.change("n"))
    assert len(outbox) == 2
    registry.back = True
    await outbox.flush()
    assert len(outbox) == 0
    assert registry.applied == ["m", "n"]


async def test_what_waits_is_bounded() -> None:
    outbox, registry = Outbox(Events(), limit=10), Away()
    for number in range(25):
        await outbox.write(f"change {number}", registry.change(str(number)))
    assert len(outbox) == 10
    registry.back = True
    await outbox.flush()
    assert registry.applied == [str(number) for number in range(15, 25)], "the latest are kept"


def test_nodes_that_come_and_go_leave_nothing_in_the_table() -> None:
    table = RoutingTable()
    for number in range(5000):
        name = f"pod-{number}"
        row = Row(name, "127.0.0.1:1", "fake")
        held = Replica(name, "m", 2 * number + 1, 0)
        table.apply(NodeView(2 * number + 1, name, row, (held,)))
        entry = table.pick("m")
        assert entry is not None
        table.drop(entry)
        table.apply(NodeView(2 * number + 2, name, None))
    assert not table.nodes
    assert not table._dropped
    assert len(table._removed) <= 1000
    assert list(table.models()) == []


def test_a_drop_is_remembered_until_the_registry_knows() -> None:
    table = RoutingTable()
    row = Row("a", "127.0.0.1:1", "fake")
    table.apply(NodeView(9, "a", row, (Replica("a", "m", 9, 9),)))
    entry = table.pick("m")
    assert entry is not None
    table.drop(entry)
    table.apply(NodeView(10, "a", row, (Replica("a", "m", 9, 9),)))
    assert table.pick("m") is None
    table.apply(NodeView(11, "a", row))
    assert not table._dropped


def test_a_quarantine_forgets_what_is_long_over() -> None:
    clock = HandClock()
    quarantine = Quarantine(Settings(), clock)
    for number in range(1000):
        quarantine.dropped(f"pod-{number}", "m", has_served=False)
    clock.advance(2 * Settings().storm_max + 1)
    quarantine.dropped("a", "m", has_served=False)
    assert len(quarantine._cases) == 1


async def test_a_foreign_node_that_serves_is_heard(sqlite_url: str) -> None:
    """A foreign node sends no heartbeats, but its answers to requests are recorded."""
    node = Node("f")
    still = replace(QUICK, poll_interval=3600.0)
    async with (
        node,
        fleet(sqlite_url, models={"m": ModelSpec("m", "fake")}, settings=still) as (router,),
    ):
        await router.registry.add_node(node.address, "fake", name="f")
        stub: Any = BackendStub(router.channel("m"))
        await stub.Predict(pb.PredictOptions(), timeout=60)

        async def seen() -> tuple[float, float]:
            (view,) = (await router.registry.snapshot()).nodes
            assert view.node is not None
            return view.node.last_seen, max((r.last_used for r in view.replicas), default=0.0)

        at, used = 0.0, 0.0
        async with asyncio.timeout(60):
            while not (at and used):
                at, used = await seen()
        now = (await router.registry.snapshot()).now
        assert now - 60 < at <= now
        assert now - 60 < used <= now
