"""Foreign nodes on which a load was abandoned: it is unknown what they hold then."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import ModelSpec, NodeRegistry, SmartRouter
from grpcerrors_router.tasks import stop
from tests.router.conftest import HANG, QUICK, eventually, fleet
from tests.router.support.nodes import Node

MODELS = {name: ModelSpec(name, "fake") for name in "mno"}


def stub(router: SmartRouter, model: str = "m") -> Any:
    return BackendStub(router.channel(model))


async def rows(url: str) -> set[str]:
    async with NodeRegistry(url) as registry:
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


async def test_a_load_in_anothers_place_that_times_out_leaves_no_row(sqlite_url: str) -> None:
    node, brief = Node("f"), {**MODELS, "n": ModelSpec("n", "fake", load_timeout=0.2)}
    async with node, fleet(sqlite_url, models=brief) as (router,):
        await router.registry.add_node(node.address, "fake", name="f")
        await router.load("m")
        node.load_delay = HANG
        with pytest.raises(Exception, match="n"):
            await stub(router, "n").Predict(pb.PredictOptions(), timeout=5)
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
        free, late = router._runner._control.free, []

        async def slow(*args: Any) -> Any:
            late.append(router.table.nodes["f"].loads["n"].generation)
            answer = await free(*args)
            await asyncio.sleep(2 * brief.load_lease)
            return answer

        async def lost(*_: Any) -> bool:
            return False

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(router._runner._control, "free", slow)
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
