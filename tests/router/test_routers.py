"""Several routers on one registry, and a registry that is down."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import ModelSpec, NodeRegistry, RegistryUnavailable, SmartRouter
from tests.router.conftest import HANG, QUICK, Recorder, eventually, fleet
from tests.router.support.nodes import Node


def stub(router: SmartRouter, model: str = "m") -> Any:
    return BackendStub(router.channel(model))


async def test_two_routers_load_a_cold_model_once(url: str) -> None:
    """Invariant 3, across routers: 200 requests to two routers cause one LoadModel."""
    nodes = [Node("a"), Node("b")]
    for node in nodes:
        node.load_delay = 0.2
    async with fleet(url, *nodes, routers=2) as routers:
        calls = [
            stub(routers[number % 2]).Predict(pb.PredictOptions(), timeout=60)
            for number in range(200)
        ]
        assert len(await asyncio.gather(*calls)) == 200
        assert sum(len(node.loads) for node in nodes) == 1
        for router in routers:
            assert router.table.in_flight() == 0


async def test_a_drop_at_one_router_is_seen_by_the_other(url: str) -> None:
    node = Node("a")
    async with fleet(url, node, routers=2) as (one, two):
        await one.load("m")
        await eventually(lambda: two.table.pick("m"))
        node.evict("m")
        await stub(one).Predict(pb.PredictOptions(), timeout=30)
        entry = one.table.pick("m")
        assert entry is not None
        await eventually(
            lambda: (seen := two.table.pick("m")) and seen.generation == entry.generation
        )
        await stub(two).Predict(pb.PredictOptions(), timeout=30)
        assert len(node.loads) == 2


async def test_what_another_router_uses_is_not_evicted(url: str) -> None:
    """Invariant 10, across routers."""
    node = Node("a")
    # The routers rarely sign in, so the eviction itself must make them acknowledge.
    patient = replace(QUICK, lease_flush=3.0, lease_ttl=120.0)
    async with fleet(url, node, routers=2, settings=patient) as (one, two):
        await one.load("m")
        await eventually(lambda: two.table.pick("m"))
        node.work = 0.7
        busy = asyncio.ensure_future(stub(two).Predict(pb.PredictOptions()))
        await eventually(lambda: node.running["m"])
        await stub(one, "n").Predict(pb.PredictOptions(), timeout=60)
        assert node.freed_in_use == 0, "invariant 10: freed while another router used it"
        assert busy.done()
        await busy


async def test_a_router_that_stops_answering_is_waited_for_no_longer_than_its_lease(
    url: str,
) -> None:
    """Invariant 9: its calls in flight count until then, and no longer."""
    node = Node("a")
    brief = replace(QUICK, lease_ttl=1.0)
    async with fleet(url, node, routers=2, settings=brief) as (one, two):
        await one.load("m")
        await eventually(lambda: two.table.pick("m"))
        node.gate = asyncio.Event()
        call = stub(two).Predict(pb.PredictOptions())
        await eventually(lambda: node.running["m"])
        for task in two._tasks:
            task.cancel()
        assert await one.unload("m") == ["a"]
        assert [row.name for row in await one.registry.routers()] == [one.name]
        call.cancel()


async def test_lost_notifications_cost_only_the_poll(url: str) -> None:
    """Invariant 16."""
    node = Node("a")
    async with fleet(url, node, routers=2) as (one, two):
        two._tasks[1].cancel()
        await one.load("m")
        await eventually(lambda: two.table.pick("m"))
        await one.unload("m")
        await eventually(lambda: two.table.pick("m") is None)


async def test_a_warm_request_makes_no_database_statement(url: str) -> None:
    """Background polls are turned off, so that only requests cause statements."""
    still = replace(QUICK, poll_interval=3600.0, lease_flush=3600.0, fresh_for=3600.0)
    node = Node("a")
    async with fleet(url, node, settings=still) as (router,):
        await stub(router).Predict(pb.PredictOptions())
        statements = 0

        def count(*_: object) -> None:
            nonlocal statements
            statements += 1

        sa.event.listen(router.registry.store.engine, "before_cursor_execute", count)
        # The load may still cause background work in the first rounds.
        async with asyncio.timeout(HANG):
            before = -1
            while statements != before:
                before = statements
                for _ in range(200):
                    await stub(router).Predict(pb.PredictOptions())
                    async with router.route("m") as channel:
                        await BackendStub(channel).Predict(pb.PredictOptions())
        await router.registry.snapshot()
        assert statements > before, "the counter counts"


class Unplugged(NodeRegistry):
    """A registry that can be unplugged."""

    plugged = True

    def __init__(self, url: str, *, timeout: float) -> None:
        super().__init__(url, timeout=timeout)
        for kind in ("read", "write"):
            setattr(self.store, kind, self._through(getattr(self.store, kind)))

    def _through(self, run: Any) -> Any:
        async def guarded(transaction: Any) -> Any:
            if not type(self).plugged:
                msg = "unplugged"
                raise RegistryUnavailable(msg)
            return await run(transaction)

        return guarded


async def test_warm_traffic_outlives_the_registry_and_changes_are_applied_after(
    sqlite_url: str,
) -> None:
    a, b, events = Node("a"), Node("b"), Recorder()
    models = {"m": ModelSpec("m", "fake", replicas=2)}
    async with fleet(sqlite_url, a, b, registry=Unplugged, models=models, events=events) as (
        router,
    ):
        await stub(router).Predict(pb.PredictOptions())
        await eventually(lambda: router.table.live_count("m") == 2)
        gone = next(entry for entry in router.table.replicas("m") if entry.node.name == "a")
        Unplugged.plugged = False
        try:
            a.evict("m")
            a.load_error = "out of memory"
            for _ in range(50):
                await stub(router).Predict(pb.PredictOptions())
            await eventually(lambda: events.count("registry_down") == 1)
            assert len(router.outbox) >= 1
            assert router.table.live_count("m") == 1
        finally:
            Unplugged.plugged = True
        await eventually(lambda: events.count("registry_up") == 1)
        assert len(router.outbox) == 0
        heals = await router.registry.heals()
        assert [heal.generation for heal in heals] == [gone.generation]


async def test_a_registry_that_can_only_be_read_stays_down(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: reads that succeed in between do not mean that the registry is up."""
    events = Recorder()
    settings = replace(QUICK, lease_flush=0.05)
    async with fleet(sqlite_url, Node("a"), events=events, settings=settings) as (router,):
        failures = 0

        async def full(_transaction: Any) -> Any:
            nonlocal failures
            failures += 1
            raise RegistryUnavailable("database or disk is full")

        monkeypatch.setattr(router.registry.store, "write", full)
        await eventually(lambda: failures >= 5)
        seen = router.watcher.seen
        reader = NodeRegistry(sqlite_url, timeout=HANG)
        await reader.add_node("h:1", "fake")
        await eventually(lambda: router.watcher.seen > seen)  # it still follows
        await eventually(lambda: failures >= 10)
        assert (events.count("registry_down"), events.count("registry_up")) == (1, 0)
        monkeypatch.undo()
        await eventually(lambda: events.count("registry_up") == 1)
        assert events.count("registry_down") == 1
        await reader.close()


async def test_a_node_loads_a_lost_model_again_without_the_registry(sqlite_url: str) -> None:
    node, events = Node("a"), Recorder()
    async with fleet(sqlite_url, node, registry=Unplugged, events=events) as (router,):
        await router.load("m")
        ((model, generation),) = node.loads
        Unplugged.plugged = False
        try:
            node.evict("m")
            await asyncio.gather(
                *(stub(router).Predict(pb.PredictOptions(), timeout=HANG) for _ in range(5))
            )
            assert node.loads == 2 * [(model, generation)], "the same generation, once for all"
        finally:
            Unplugged.plugged = True
        await eventually(lambda: not router.outbox.down)
        (view,) = (await router.registry.snapshot()).nodes
        assert [row.generation for row in view.replicas] == [generation]
        (heal,) = await router.registry.heals()
        assert (heal.generation, heal.action) == (generation, "reloaded")
        assert events.count("heal") == 1
        await router.heartbeat(node.heartbeat())
        await router.watcher.catch_up()
        assert router.table.holds("a", "m", generation)
        assert len(node.loads) == 2


@pytest.mark.parametrize("why", ["foreign", "refuses", "silent", "unfenced"])
async def test_without_the_registry_no_other_load_is_sent(sqlite_url: str, why: str) -> None:
    node = Node("a")
    async with fleet(sqlite_url, registry=Unplugged) as (router,), node:
        if why == "foreign":
            await router.registry.add_node(node.address, "fake", name="a")
        else:
            await router.heartbeat(node.heartbeat())
        if why == "unfenced":  # loaded by someone who gave no generation
            node.held["m"] = 0
            node.inventory += 1
            await router.heartbeat(node.heartbeat())
        await router.load("m")
        before = len(node.loads)
        Unplugged.plugged = False
        try:
            node.evict("m")
            if why == "refuses":
                node.load_error = "out of memory"
            elif why == "silent":
                node.load_fails = [(grpc.StatusCode.UNAVAILABLE, "lost")]
            for _ in range(2):
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub(router).Predict(pb.PredictOptions(), timeout=HANG)
            sent = len(node.loads) - before
            assert sent == (why in ("refuses", "silent")), "each loss is tried once"
        finally:
            Unplugged.plugged = True
        node.load_error = ""
        await eventually(lambda: not router.outbox.down)
        await stub(router).Predict(pb.PredictOptions(), timeout=HANG)


async def test_a_cold_model_without_a_registry_says_so(sqlite_url: str) -> None:
    async with fleet(sqlite_url, Node("a"), registry=Unplugged) as (router,):
        Unplugged.plugged = False
        try:
            with pytest.raises(RegistryUnavailable, match="cannot be reached"):
                await stub(router).Predict(pb.PredictOptions(), timeout=5)
        finally:
            Unplugged.plugged = True


async def test_a_load_that_ends_without_a_registry_is_published_later(sqlite_url: str) -> None:
    node = Node("a")
    node.load_delay = 0.5
    async with fleet(sqlite_url, node, registry=Unplugged) as (router,):
        call = asyncio.ensure_future(stub(router).Predict(pb.PredictOptions(), timeout=30))
        await eventually(lambda: node.loading)
        Unplugged.plugged = False
        try:
            await eventually(lambda: router.outbox.down)
            await call
            assert router.table.live_count("m") == 1
        finally:
            Unplugged.plugged = True
        await eventually(lambda: not router.outbox.down)
        row = (await router.registry.snapshot()).nodes[0].replicas[0]
        assert row.generation == node.loads[0][1]
