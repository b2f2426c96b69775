"""Evictions that fail: the router dies, the caller cancels, the node cannot or will not unload."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import (
    InUse,
    LoadFailed,
    ModelSpec,
    NodeRegistry,
    RegistryUnavailable,
    Settings,
    SmartRouter,
)
from grpcerrors_router.entities import Load
from grpcerrors_router.errors import NameTaken, UnloadUnsupported
from grpcerrors_router.gateway.server import GatewayServer
from grpcerrors_router.registry.jobs import JobRequest
from tests.router.conftest import HANG, QUICK, Recorder, eventually, fleet
from tests.router.support.nodes import Node
from tests.router.support.processes import fleet as processes

if TYPE_CHECKING:
    from pathlib import Path

BRIEF = replace(QUICK, load_lease=1.0)
MODELS = {name: ModelSpec(name, "fake") for name in "mno"}


def stub(router: SmartRouter, model: str = "m") -> Any:
    return BackendStub(router.channel(model))


@pytest.mark.parametrize("foreign", [False, True])
async def test_a_router_that_dies_in_an_eviction_leaves_nothing_behind(
    sqlite_url: str, foreign: bool
) -> None:
    """Invariant 17: the router claims the slot of m for n, and never sends Free."""
    node = Node("a")
    async with node, fleet(sqlite_url, models=MODELS, settings=BRIEF) as (router,):
        if foreign:
            await router.registry.add_node(node.address, "fake", name="a")
        else:
            await router.heartbeat(node.heartbeat())
        await router.load("m")
        (m,) = router.table.replicas("m")
        async with NodeRegistry(sqlite_url, router="dead", timeout=HANG) as other:
            asked = JobRequest("a", "n", "dead", 1, BRIEF.load_lease, "m", m.generation)
            assert isinstance(await other.claim_load(asked), Load)
        await router.watcher.catch_up()
        assert router.table.pick("m") is None
        for model in "mnm":
            await stub(router, model).Predict(pb.PredictOptions(), timeout=60)


async def test_an_unload_whose_caller_leaves_during_the_commit_continues(sqlite_url: str) -> None:
    node = Node("a")
    async with fleet(sqlite_url, node, models=MODELS, settings=BRIEF) as (router,):
        await router.load("m")
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def committing(_: object) -> None:
            loop.call_soon_threadsafe(begun.set)

        sa.event.listen(router.registry.store.engine, "commit", committing)
        unload = asyncio.create_task(router.unload("m"))
        await begun.wait()
        unload.cancel()
        await eventually(lambda: node.frees == ["m"])
        await eventually(lambda: not router.table.nodes["a"].loads)
        for model in "mn":
            await stub(router, model).Predict(pb.PredictOptions(), timeout=60)


async def test_a_backend_without_free_keeps_its_model_and_its_row(sqlite_url: str) -> None:
    node = Node("f")
    node.free_unimplemented = True
    async with node, fleet(sqlite_url, models=MODELS) as (router,):
        await router.registry.add_node(node.address, "fake", name="f")
        await router.load("m")
        with pytest.raises(UnloadUnsupported, match="has no Free"):
            await router.unload("m")
        assert router.table.live_count("m") == 1
        await stub(router).Predict(pb.PredictOptions(), timeout=60)
        assert len(node.loads) == 1


async def test_an_unload_says_what_it_freed_although_one_node_refuses(sqlite_url: str) -> None:
    nodes = [Node("a"), Node("b")]
    models = {"m": ModelSpec("m", "fake", replicas=2)}
    async with fleet(sqlite_url, *nodes, models=models) as (router,):
        await stub(router).Predict(pb.PredictOptions(), timeout=60)
        await eventually(lambda: router.table.live_count("m") == 2)
        async with router.route("m") as channel:
            assert channel._reserved is not None
            busy = channel._reserved.entry.node.name
            free = "b" if busy == "a" else "a"
            with pytest.raises(InUse, match=f'"{busy}".*unloaded from {free}'):
                await router.unload("m")


@pytest.mark.parametrize("kind", ["own", "foreign without Free"])
async def test_replicas_with_other_options_are_replaced(sqlite_url: str, kind: str) -> None:
    """models.toml was changed, and the router restarted."""
    node = Node("a")
    before, after = ({"m": ModelSpec("m", "fake", {"Threads": count})} for count in (1, 2))
    current = replace(QUICK, replace_interval=0.05)
    async with node:
        async with fleet(sqlite_url, models=before) as (router,):
            if kind == "own":
                await router.heartbeat(node.heartbeat())
            else:
                node.free_unimplemented = True
                await router.registry.add_node(node.address, "fake", name="a")
                await router.watcher.catch_up()
            await router.load("m")
        async with fleet(sqlite_url, models=after, settings=current) as (router,):
            await eventually(lambda: len(node.loads) == 2)
            await eventually(lambda: router.table.live_count("m") == 1)
            (entry,) = router.table.replicas("m")
            assert entry.row.options == after["m"].digest
            assert await router.registry.heals() == []


async def test_options_that_cannot_be_loaded_replace_one_replica_only(sqlite_url: str) -> None:
    nodes = [Node("a"), Node("b")]
    before, after = ({"m": ModelSpec("m", "fake", {"Threads": n}, 2)} for n in (1, 2))
    current = replace(QUICK, replace_interval=0.05, load_backoff=HANG)
    async with nodes[0], nodes[1]:
        async with fleet(sqlite_url, models=before) as (router,):
            for node in nodes:
                await router.heartbeat(node.heartbeat())
            await stub(router).Predict(pb.PredictOptions(), timeout=60)
            await eventually(lambda: router.table.live_count("m") == 2)
        for node in nodes:
            node.load_error = "no such option"
        async with fleet(sqlite_url, models=after, settings=current) as (router,):
            await eventually(lambda: router.table.is_failing("m"))
            for _ in range(3):
                await router._flights.replace_outdated(after["m"])
            assert router.table.live_count("m") == 1


async def test_a_second_router_of_the_same_name_is_refused(url: str) -> None:
    settings = replace(QUICK, lease_ttl=2.0)
    async with SmartRouter(
        NodeRegistry(url, router="same", timeout=HANG), MODELS, settings=settings
    ):
        second = SmartRouter(
            NodeRegistry(url, router="same", timeout=HANG), MODELS, settings=settings
        )
        with pytest.raises(NameTaken, match='router name "same"'):
            async with second:
                pass
        # It has closed its registry, although it has never run.
        with pytest.raises(RuntimeError, match="after shutdown"):
            await second.registry.routers()


async def test_a_router_that_was_killed_may_come_back_under_its_name(url: str) -> None:
    settings = replace(QUICK, lease_ttl=1.0)
    dead = NodeRegistry(url, router="same", timeout=HANG)
    await dead.open()
    assert await dead.sign_in(1, 1.0) is None
    await dead.close()
    async with SmartRouter(
        NodeRegistry(url, router="same", timeout=HANG), MODELS, settings=settings
    ) as router:
        assert [row.name for row in await router.registry.routers()] == ["same"]


async def test_a_node_name_belongs_to_one_process(sqlite_url: str) -> None:
    """The second one is refused while the first is reachable, and takes over when it is not."""
    first, second = Node("same"), Node("same")
    async with second, fleet(sqlite_url, first, models=MODELS) as (router,):
        await router.load("m")
        second.boot_id = "another-boot"
        with pytest.raises(NameTaken) as caught:
            await router.heartbeat(second.heartbeat())
        assert first.address in caught.value.details()
        assert second.address in caught.value.details()
        assert router.table.live_count("m") == 1
        await first.stop()
        await router.heartbeat(second.heartbeat())
        assert router.table.nodes["same"].info.address == second.address
        assert router.table.live_count("m") == 0


async def test_routers_need_not_agree_on_the_time(sqlite_url: str) -> None:
    """A failed load backs off for the same time, whatever the router's clock says."""

    class Behind:
        def time(self) -> float:
            return loop.time()

        def monotonic(self) -> float:
            return loop.time()

        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(seconds)

    loop = asyncio.get_running_loop()
    node = Node("a")
    node.load_error = "out of memory, once"
    async with fleet(sqlite_url, node, models=MODELS, clock=Behind()) as (router,):
        with pytest.raises(Exception, match="out of memory"):
            await router.load("m", timeout=60)
        node.load_error = ""
        (failed,) = router.table.nodes["a"].loads.values()
        assert failed.retry_at - loop.time() <= QUICK.load_backoff


@pytest.mark.slow
async def test_evictions_by_the_router_are_no_heals(tmp_path: Path) -> None:
    """The host reports at once that the model is gone, as the router asked it to."""
    models = {name: ModelSpec(name, "echo") for name in "mn"}
    settings = Settings(min_residency=0.0, place_retry=0.02)
    events = Recorder()
    registry = NodeRegistry(f"sqlite:///{tmp_path / 'router.db'}", timeout=HANG)
    async with (
        SmartRouter(registry, models, settings=settings, events=events) as router,
        processes(tmp_path, "") as host,
    ):
        server = GatewayServer(router, "127.0.0.1:0")
        await host.node(await server.start(), "left")
        while events.count("evicted") < 100:
            for model in "mn":
                await stub(router, model).Predict(pb.PredictOptions(Prompt="hi"), timeout=60)
        assert events.count("heal") == 0
        assert await registry.heals() == []
        await server.stop(0)


async def test_an_eviction_during_which_the_registry_is_lost_is_tried_again(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each load that started also ends, so that none is counted as in flight forever."""
    node, events = Node("a"), Recorder()
    async with fleet(sqlite_url, node, models=MODELS, events=events) as (router,):
        await router.load("m")
        acknowledged = router.registry.routers
        failures = iter(range(1))

        async def routers() -> Any:
            if next(failures, None) is not None:
                raise RegistryUnavailable("unplugged")
            return await acknowledged()

        monkeypatch.setattr(router.registry, "routers", routers)
        await stub(router, "n").Predict(pb.PredictOptions(), timeout=HANG)
        assert set(node.held) == {"n"}
        assert events.count("load_started") == events.count("load_finished") == 3


async def test_a_foreign_model_is_not_evicted_by_a_load_that_fails(sqlite_url: str) -> None:
    """LoadModel itself replaces the model, so nothing is unloaded until it succeeds."""
    node, events = Node("f"), Recorder()
    async with node, fleet(sqlite_url, models=MODELS, events=events) as (router,):
        await router.registry.add_node(node.address, "fake", name="f")
        await router.load("m")
        node.load_error = "no"
        with pytest.raises(LoadFailed):
            await router.load("n", timeout=HANG)
        assert events.count("evicted") == 0
        assert router.table.pick("m") is not None
