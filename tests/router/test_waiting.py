"""Requests that wait: for a slot in fair turns, or for a load that hangs."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import grpc
import pytest

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import LoadFailed, LoadTimeout, ModelSpec, NoCapacity, SmartRouter
from grpcerrors_router.entities import Held
from grpcerrors_router.errors import Overloaded, RouterStopping
from tests.router.conftest import HANG, QUICK, eventually, fleet
from tests.router.support.nodes import Node

MODELS = {name: ModelSpec(name, "fake") for name in "mno"}


def stub(router: SmartRouter, model: str = "m") -> Any:
    return BackendStub(router.channel(model))


async def test_a_request_waits_for_a_slot_as_long_as_its_deadline(sqlite_url: str) -> None:
    node = Node()
    async with fleet(sqlite_url, node, models=MODELS) as (router,):
        async with router.route("m"):
            with pytest.raises(LoadTimeout, match="waits for a slot"):
                await stub(router, "n").Predict(pb.PredictOptions(), timeout=0.3)
            patient = asyncio.ensure_future(stub(router, "n").Predict(pb.PredictOptions()))
            await asyncio.sleep(0)
        await patient
        assert node.freed_in_use == 0


async def test_too_many_who_wait_are_refused_with_retry_info(sqlite_url: str) -> None:
    few = replace(QUICK, max_waiting=3)
    async with fleet(sqlite_url, Node(), models=MODELS, settings=few) as (router,):
        async with router.route("m"):
            calls = [
                asyncio.ensure_future(stub(router, "n").Predict(pb.PredictOptions()))
                for _ in range(4)
            ]
            done, waiting = await asyncio.wait(calls, return_when="FIRST_COMPLETED")
            (refused,) = done
            error = refused.exception()
            assert isinstance(error, Overloaded)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error.retry_after is not None
        await asyncio.gather(*waiting)


async def test_models_that_share_a_slot_take_turns(sqlite_url: str) -> None:
    """Three models on one slot: all requests are answered, in groups and not one by one."""
    node = Node()
    turns = replace(QUICK, min_residency=0.2)
    async with fleet(sqlite_url, node, models=MODELS, settings=turns) as (router,):
        answered: Counter[str] = Counter()

        async def ask(model: str) -> None:
            await stub(router, model).Predict(pb.PredictOptions(), timeout=60)
            answered[model] += 1

        calls = []
        for number in range(90):
            calls.append(asyncio.create_task(ask("mno"[number % 3])))
            await asyncio.sleep(0.02)
        await asyncio.gather(*calls)
        assert answered == {"m": 30, "n": 30, "o": 30}
        loads = Counter(model for model, _ in node.loads)
        assert max(loads.values()) - min(loads.values()) <= 2, loads
        assert loads.total() <= 45, "a load serves all that wait for it"
        assert node.freed_in_use == 0


async def test_a_model_that_is_always_in_use_lets_others_in(sqlite_url: str) -> None:
    """Its calls overlap, so it is never idle. It is drained to free the slot."""
    node = Node()
    node.work = 0.2
    fair = replace(QUICK, drain_after=0.3)
    async with fleet(sqlite_url, node, models=MODELS, settings=fair) as (router,):
        await router.load("m")
        stop = False

        async def keep_busy(after: float) -> None:
            await asyncio.sleep(after)
            while not stop:
                await stub(router, "m").Predict(pb.PredictOptions(), timeout=60)

        busy = [asyncio.create_task(keep_busy(0.05 * number)) for number in range(4)]
        await eventually(lambda: node.running["m"] == 4)
        await stub(router, "n").Predict(pb.PredictOptions(), timeout=60)
        stop = True
        await asyncio.gather(*busy)
        assert node.freed_in_use == 0


async def test_a_load_that_hangs_is_hedged_on_a_free_node(sqlite_url: str) -> None:
    nodes = [Node("a"), Node("b")]
    nodes[0].load_delay = 3600
    quick = replace(QUICK, load_hedge_free=0.2)
    async with fleet(sqlite_url, *nodes, settings=quick) as (router,):
        await asyncio.gather(
            *(stub(router).Predict(pb.PredictOptions(), timeout=60) for _ in range(20))
        )
        assert [len(node.loads) for node in nodes] == [1, 1]
        assert router.table.loads("m"), "the first load continues"


async def test_the_slower_of_two_loads_is_freed(sqlite_url: str) -> None:
    nodes = [Node("a"), Node("b")]
    nodes[0].load_delay = 1.5
    quick = replace(QUICK, load_hedge_free=0.2)
    async with fleet(sqlite_url, *nodes, settings=quick) as (router,):
        await stub(router).Predict(pb.PredictOptions(), timeout=60)
        await eventually(lambda: nodes[0].frees == ["m"])
        await eventually(lambda: not router.table.nodes["a"].loads)
        assert router.table.live_count("m") == 1
        await stub(router).Predict(pb.PredictOptions(), timeout=60)


@pytest.mark.parametrize("load_hedge", [HANG, 0.3])
async def test_a_hedge_evicts_nothing_early(sqlite_url: str, load_hedge: float) -> None:
    holder, hanging = Node("a"), Node("b")
    quick = replace(QUICK, load_hedge_free=0.1, load_hedge=load_hedge)
    async with fleet(sqlite_url, holder, models=MODELS, settings=quick) as (router,), hanging:
        await router.load("n")
        (n,) = router.table.replicas("n")
        hanging.load_delay = 3600
        await router.heartbeat(hanging.heartbeat())
        if load_hedge == HANG:
            with pytest.raises(LoadTimeout):
                await stub(router).Predict(pb.PredictOptions(), timeout=0.5)
            assert n.live
        else:
            await stub(router).Predict(pb.PredictOptions(), timeout=HANG)
            assert not n.live, "after load_hedge an idle model gives way"


async def test_a_model_that_fails_to_load_takes_no_healthy_model_down(sqlite_url: str) -> None:
    """A free slot's node refuses it first, and then it evicts nothing."""
    nodes = [Node("a"), Node("b")]
    async with fleet(sqlite_url, *nodes, models=MODELS) as (router,):
        await router.load("m")
        (m,) = router.table.replicas("m")
        for node in nodes:
            node.load_error = "out of memory"
        for _ in range(5):
            with pytest.raises(LoadFailed, match="out of memory"):
                await stub(router, "n").Predict(pb.PredictOptions(), timeout=60)
            await eventually(
                lambda: (
                    not any(
                        load.backing_off(router.table._clock.monotonic())
                        for node in router.table.nodes.values()
                        for load in node.loads.values()
                    )
                )
            )
        assert m.live
        assert not [free for node in nodes for free in node.frees]


async def test_each_waiter_gets_an_error_of_its_own(sqlite_url: str) -> None:
    node = Node("a")
    node.load_delay, node.load_error = 0.2, "no such file"
    async with fleet(sqlite_url, node) as (router,):
        results = await asyncio.gather(
            *(router.load("m", timeout=60) for _ in range(50)), return_exceptions=True
        )
        assert len({id(error) for error in results}) == 50
        for error in results:
            assert isinstance(error, LoadFailed)
            assert error.retry_after is not None
            frames, trace = 0, error.__traceback__
            while trace is not None:
                frames, trace = frames + 1, trace.tb_next
            assert frames < 20


async def test_requests_that_wait_when_the_router_stops_get_an_error(sqlite_url: str) -> None:
    node = Node("a")
    node.load_delay = 3600
    async with fleet(sqlite_url, node) as (router,):
        waiting = asyncio.create_task(router.load("m"))
        await eventually(lambda: node.loading)
        await router.close()
        with pytest.raises(RouterStopping):
            await waiting
        with pytest.raises(RouterStopping):
            await router.load("m")


async def test_an_adopted_model_on_a_silent_node_says_so(sqlite_url: str) -> None:
    node = Node("a")
    async with fleet(sqlite_url) as (router,):
        beat = replace(node.heartbeat(), address="127.0.0.1:1", models=(Held("strange"),))
        await router.heartbeat(beat)
        router.table.nodes["a"].fresh_until = 0.0
        with pytest.raises(NoCapacity, match=r'not in models\.toml.*"a"'):
            await stub(router, "strange").Predict(pb.PredictOptions(), timeout=60)


LOST = (grpc.StatusCode.UNAVAILABLE, "connection reset")


async def test_a_load_without_an_answer_is_tried_again_while_requests_wait(sqlite_url: str) -> None:
    """Invariant 17: what kept the node from answering may be over."""
    node = Node("a")
    node.load_fails = [LOST]
    slow = replace(QUICK, load_backoff=1.0)
    async with fleet(sqlite_url, node, settings=slow) as (router,):
        with pytest.raises(LoadFailed, match="connection reset"):
            await router.load("m", timeout=60)
        await stub(router).Predict(pb.PredictOptions(), timeout=60)
        assert len(node.loads) == 2


async def test_a_request_does_not_fail_for_a_load_that_began_before_it_came(
    sqlite_url: str,
) -> None:
    """Invariant 17: the request gets a flight of its own."""
    node = Node("a")
    node.load_fails, node.load_gate = [LOST], asyncio.Event()
    async with fleet(sqlite_url, node) as (router,):
        first = asyncio.create_task(router.load("m", timeout=60))
        await eventually(lambda: node.loading)
        second = asyncio.create_task(router.load("m", timeout=60))
        await asyncio.sleep(0)
        node.load_gate.set()
        with pytest.raises(LoadFailed, match="connection reset"):
            await first
        assert await second == "a"
        assert len(node.loads) == 2


async def test_a_request_that_waits_for_a_silent_load_says_so(sqlite_url: str) -> None:
    node = Node("a")
    node.load_fails = [LOST]
    calm = replace(QUICK, load_backoff=60.0)
    async with fleet(sqlite_url, node, settings=calm) as (router,):
        with pytest.raises(LoadFailed):
            await router.load("m", timeout=60)
        with pytest.raises(LoadTimeout, match=r'"a" has just failed .* connection reset'):
            await router.load("m", timeout=0.3)


async def test_a_node_that_is_back_serves_the_next_request(sqlite_url: str) -> None:
    """Invariant 17: a request fails only on news, so silent nodes are probed for it."""
    calm = replace(QUICK, probe_interval=3600.0)
    async with fleet(sqlite_url, Node("a"), settings=calm) as (router,):
        entry = router.table.nodes["a"]
        entry.fresh_until = 0.0
        router.table.set_state(entry, reachable=False, busy=True)
        assert await router.load("m", timeout=60) == "a"


async def test_no_load_is_sent_to_a_node_that_does_not_answer(sqlite_url: str) -> None:
    """The node is dead, and no call has shown that yet."""
    calm = replace(QUICK, load_backoff=60.0)
    nodes = [Node("a"), Node("b")]
    async with fleet(sqlite_url, *nodes, settings=calm) as (router,):
        await nodes[0].stop()
        router.table.nodes["a"].fresh_until = 0.0
        assert await router.load("m", timeout=60) == "b"
        assert not router.table.nodes["a"].loads, "no failed load is left behind"
