"""Foreign nodes on which a load was abandoned: it is unknown what they hold then."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import pytest

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import ModelSpec, NodeRegistry, RegistryUnavailable, SmartRouter
from grpcerrors_router.entities import Load
from grpcerrors_router.registry.jobs import JobRequest
from grpcerrors_router.tasks import stop
from tests.router.conftest import HANG, QUICK, eventually, fleet
from tests.router.support.nodes import Node

MODELS = {name: ModelSpec(name, "fake") for name in "mno"}


def stub(router: SmartRouter, model: str = "m") -> Any:
    return BackendStub(router.channel(model))


async def rows(url: str) -> set[str]:
    async with NodeRegistry(url, timeout=HANG) as registry:
        views = (await registry.snapshot()).nodes
        return {row.model for view in views for row in view.replicas}


@pytest.mark.parametrize("slots", [1, 2])
async def test_a_router_that_stops_in_an_eviction_leaves_no_row_of_the_victim(
    sqlite_url: str, slots: int
) -> None:
    node = Node("f", slots=slots)
    others = ["m", "o"][:slots]
    async with node:
        async with fleet(sqlite_url, models=MODELS) as (router,):
            await router.registry.add_node(node.address, "fake", name="f", slots=slots)
            for model in others:
                await router.load(model)
            node.load_delay = HANG
            call = asyncio.ensure_future(stub(router, "n").Predict(pb.PredictOptions()))
            await eventually(lambda: node.loading)
        await asyncio.wait({call})
        assert await rows(sqlite_url) == set(others[1:])


async def test_what_a_dead_router_did_not_ask_to_unload_is_not_displaced_in_use(url: str) -> None:
    """Invariant 9: the router died while it waited for the calls on the victim to end."""
    node, brief = Node("f"), replace(QUICK, load_lease=0.3, drain_after=0.1)
    node.gate = asyncio.Event()
    async with node, fleet(url, models=MODELS, settings=brief) as (router,):
        await router.registry.add_node(node.address, "fake", name="f")
        await router.load("m")
        call = asyncio.ensure_future(stub(router).Predict(pb.PredictOptions(), timeout=HANG))
        await eventually(lambda: node.running["m"])
        (m,) = router.table.replicas("m")
        async with NodeRegistry(url, router="dead", timeout=HANG) as other:
            asked = JobRequest("f", "n", "dead", 1, brief.load_lease, "m", m.generation)
            assert isinstance(await other.claim_load(asked), Load)
        await router.watcher.catch_up()
        load = asyncio.ensure_future(stub(router, "n").Predict(pb.PredictOptions(), timeout=HANG))

        def is_next() -> bool:
            job = router.table.nodes["f"].loads.get("n")
            return job is not None and job.owner != "dead"

        await eventually(is_next)
        assert await rows(url) == {"m"}, "invariant 9: m is in use"
        assert [model for model, _ in node.loads] == ["m"]
        node.gate.set()
        await asyncio.gather(call, load)
        assert [model for model, _ in node.loads] == ["m", "n"]


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("fault", ["registry lost", "job lost", "late"])
async def test_a_router_that_cannot_record_that_it_asks_a_node_sends_nothing(
    sqlite_url: str, slots: int, fault: str
) -> None:
    node, brief = Node("f", slots=slots), replace(QUICK, load_lease=1.0)
    others = ["m", "o"][:slots]
    async with node, fleet(sqlite_url, models=MODELS, settings=brief) as (router,):
        await router.registry.add_node(node.address, "fake", name="f", slots=slots)
        for model in others:
            await router.load(model)
        note, sent = router.registry.note_asked, []

        async def fails(load: Load, lease: float) -> bool:
            sent.append((list(node.frees), len(node.loads), load.generation))
            if len(sent) > 1:
                return await note(load, lease)
            if fault == "registry lost":
                raise RegistryUnavailable("gone")
            if fault == "late":
                await note(load, lease)
                await asyncio.sleep(2 * lease)
            return fault == "late"

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(router.registry, "note_asked", fails)
            await stub(router, "n").Predict(pb.PredictOptions(), timeout=HANG)
        assert len(sent) > 1
        assert all((frees, loads) == ([], slots) for frees, loads, _ in sent)
        assert node.loads[slots:] == [("n", sent[-1][-1])]


@pytest.mark.parametrize("slots", [1, 2])
async def test_the_registry_knows_before_a_node_is_asked(sqlite_url: str, slots: int) -> None:
    node, others = Node("f", slots=slots), ["m", "o"][:slots]
    async with node, fleet(sqlite_url, models=MODELS) as (router,):
        await router.registry.add_node(node.address, "fake", name="f", slots=slots)
        for model in others:
            await router.load(model)
        seen: list[bool] = []

        async def look(ask: Any, *args: Any) -> Any:
            views = (await router.registry.snapshot()).nodes
            seen.extend(load.asked for view in views for load in view.loads)
            return await ask(*args)

        control = router._evictor._control
        with pytest.MonkeyPatch.context() as patch:
            for name in ("free", "load"):
                patch.setattr(control, name, partial(look, getattr(control, name)))
            await stub(router, "n").Predict(pb.PredictOptions(), timeout=HANG)
        assert seen == [True] * slots, "LoadModel, or Free and LoadModel"


async def test_a_load_in_anothers_place_that_times_out_leaves_no_row(sqlite_url: str) -> None:
    node, brief = Node("f"), {**MODELS, "n": ModelSpec("n", "fake", load_timeout=0.2)}
    async with node, fleet(sqlite_url, models=brief) as (router,):
        await router.registry.add_node(node.address, "fake", name="f")
        await router.load("m")
        node.load_delay = HANG
        with pytest.raises(Exception, match="n"):
            await stub(router, "n").Predict(pb.PredictOptions(), timeout=5)
        assert await rows(sqlite_url) == set()


@pytest.mark.parametrize("cause", ["load", "unload"])
@pytest.mark.parametrize("says", ["gone", "nothing", "ready"])
async def test_a_foreign_node_that_does_not_answer_free_is_asked_what_it_holds(
    sqlite_url: str, cause: str, says: str
) -> None:
    node = Node("f", slots=2)
    node.status_unimplemented = says == "nothing"
    node.status_state = pb.StatusResponse.READY if says == "ready" else None
    async with node, fleet(sqlite_url, models=MODELS) as (router,):
        await router.registry.add_node(node.address, "fake", name="f", slots=2)
        for model in "mo":
            await router.load(model)
        node.free_fails = [(grpc.StatusCode.UNAVAILABLE, "lost")]
        with pytest.raises(grpc.aio.AioRpcError, match="lost"):
            await (router.unload("m") if cause == "unload" else router.load("n"))
        assert await rows(sqlite_url) == ({"m", "o"} if says == "ready" else {"o"})


async def test_a_node_that_registers_reports_what_it_has_unloaded(sqlite_url: str) -> None:
    node = Node("a")
    async with fleet(sqlite_url, node, models=MODELS) as (router,):
        await router.load("m")
        node.free_fails = [(grpc.StatusCode.UNAVAILABLE, "lost")]
        with pytest.raises(grpc.aio.AioRpcError, match="lost"):
            await router.unload("m")
        assert await rows(sqlite_url) == {"m"}
        assert not node.statuses
        await router.heartbeat(node.heartbeat())
        assert await rows(sqlite_url) == set()


async def test_a_router_whose_lease_ran_out_during_free_does_not_send_the_load(
    sqlite_url: str,
) -> None:
    """The router was paused; another one may have loaded another model there meanwhile."""
    node = Node("f", slots=2)
    brief = replace(QUICK, load_lease=0.3)
    async with node, fleet(sqlite_url, models=MODELS, settings=brief) as (router,):
        await router.registry.add_node(node.address, "fake", name="f", slots=2)
        for model in "mo":
            await router.load(model)
        free, late = router._evictor._control.free, []

        async def slow(*args: Any) -> Any:
            late.append(router.table.nodes["f"].loads["n"].generation)
            answer = await free(*args)
            await asyncio.sleep(2 * brief.load_lease)
            return answer

        async def lost(*_: Any) -> bool:
            return False

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(router._evictor._control, "free", slow)
            patch.setattr(router.registry, "renew_load", lost)
            await stub(router, "n").Predict(pb.PredictOptions(), timeout=HANG)
        (generation,) = (number for model, number in node.loads if model == "n")
        assert generation not in late


async def test_a_router_that_was_paused_looks_before_it_picks_a_foreign_node(
    sqlite_url: str,
) -> None:
    """Invariants 9 and 10: other routers wait for it no longer than its lease."""
    node, brief = Node("f"), replace(QUICK, lease_ttl=0.5)
    node.serves_anyway = True
    async with node, fleet(sqlite_url, models=MODELS, settings=brief, routers=2) as (router, other):
        await router.registry.add_node(node.address, "fake", name="f")
        for each in (router, other):
            await each.watcher.catch_up()
        await stub(router).Predict(pb.PredictOptions(), timeout=HANG)
        reserved = router.route("m")
        channel = await reserved.__aenter__()
        channel_stub = BackendStub(channel)
        await stop(router._tasks)
        await stub(other, "n").Predict(pb.PredictOptions(), timeout=HANG)
        assert set(node.held) == {"n"}
        await channel_stub.Predict(pb.PredictOptions(), timeout=HANG)
        assert [model for model, _ in node.loads] == ["m", "n", "m"]
        await reserved.__aexit__(None, None, None)


async def test_of_two_loads_that_end_at_once_one_stays(sqlite_url: str) -> None:
    nodes = [Node("a"), Node("b")]
    quick = replace(QUICK, load_hedge_free=0.1)
    async with fleet(sqlite_url, *nodes, models=MODELS, settings=quick) as (router,):
        finish, both = router.registry.finish_load, asyncio.Barrier(2)

        async def together(*args: Any) -> Any:
            await both.wait()
            refused = await finish(*args)
            await both.wait()
            return refused

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(router.registry, "finish_load", together)
            await stub(router).Predict(pb.PredictOptions(), timeout=HANG)
        await eventually(lambda: sum(len(node.frees) for node in nodes) > 0)
        await eventually(lambda: not any(node.loads for node in router.table.nodes.values()))
        assert router.table.live_count("m") == 1
        assert [len(node.loads) for node in nodes] == [1, 1]


async def test_a_load_on_a_node_that_is_drained_does_not_hold_the_model_up(sqlite_url: str) -> None:
    nodes = [Node("a"), Node("b")]
    nodes[0].load_delay = HANG
    async with fleet(sqlite_url, *nodes, models=MODELS) as (router,):
        call = asyncio.ensure_future(stub(router).Predict(pb.PredictOptions(), timeout=HANG))
        await eventually(lambda: nodes[0].loading)
        await router.registry.set_draining("a", True)
        await call
