"""Nodes that answer MODEL_LOADING: requests wait, and nothing is dropped, loaded or evicted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import pytest

from grpcerrors import is_model_loading, model_loading
from grpcerrors.aio import ModelGuard
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import (
    BackendServicer,
    BackendStub,
    add_BackendServicer_to_server,
)
from grpcerrors_router import LoadTimeout, ModelSpec, SmartRouter
from grpcerrors_router.errors import Overloaded
from tests.router.conftest import HANG, QUICK, Recorder, eventually, fleet
from tests.router.support.nodes import Node


def stub(router: SmartRouter, **options: Any) -> Any:
    return BackendStub(router.channel("m", **options))


def says(*, retry_after: float = 0.0, rung: str = "details") -> tuple[Any, ...]:
    """Return what a node answers: in full, or as proxies or old libraries cut it."""
    error = model_loading("fake", model="m", retry_after=retry_after)
    trailers = {"details": error.trailing_metadata, "trailer": error.trailing_metadata[1:]}
    return error.code, error.details, trailers.get(rung, ())


async def ask(router: SmartRouter, rpc: str, **options: Any) -> None:
    if rpc == "Predict":
        await stub(router, **options).Predict(pb.PredictOptions(), timeout=HANG)
    elif rpc == "PredictStream":
        async for _ in stub(router, **options).PredictStream(pb.PredictOptions(), timeout=HANG):
            pass
    else:
        call = stub(router, **options).AudioTranscriptionLive(timeout=HANG)
        await call.write(pb.TranscriptLiveRequest())
        await call.done_writing()
        async for _ in call:
            pass


@pytest.mark.slow
@pytest.mark.parametrize("rung", ["details", "trailer", "text"])
@pytest.mark.parametrize("rpc", ["Predict", "PredictStream", "AudioTranscriptionLive"])
async def test_a_request_waits_while_the_node_loads_the_model(
    sqlite_url: str, rpc: str, rung: str
) -> None:
    """More often than `attempts`, and the replica stays what it was."""
    node, events = Node("a"), Recorder()
    async with fleet(sqlite_url, node, events=events) as (router,):
        await router.load("m")
        entry = router.table.pick("m")
        node.loading_says = says(rung=rung)
        call = asyncio.create_task(ask(router, rpc))
        await eventually(lambda: node.refused > router.settings.attempts + 1)
        node.loading_says = None
        await call
        assert router.table.pick("m") is entry
        assert len(node.loads) == 1
        assert not node.frees
        assert await router.registry.heals() == []
        assert events.count("heal") == events.count("evicted") == 0
        assert router.table.in_flight() == 0


async def test_another_replica_serves_meanwhile(sqlite_url: str) -> None:
    nodes = [Node("a"), Node("b")]
    models = {"m": ModelSpec("m", "fake", replicas=2)}
    async with fleet(sqlite_url, *nodes, models=models) as (router,):
        await router.load("m")
        await eventually(lambda: router.table.live_count("m") == 2)
        nodes[0].loading_says = says(retry_after=HANG)
        for _ in range(10):
            await ask(router, "Predict")
        assert nodes[0].refused == 1, "it is left alone as long as it asks for"
        assert sum(nodes[1].executed.values()) == 10


async def test_one_request_at_a_time_finds_out_whether_the_model_is_loaded(sqlite_url: str) -> None:
    node = Node("a")
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")
        node.loading_says = says(retry_after=0.1)
        first = asyncio.create_task(ask(router, "Predict"))
        await eventually(lambda: node.refused)
        calls = [asyncio.create_task(ask(router, "Predict")) for _ in range(50)]
        await eventually(lambda: node.refused >= 4)
        assert node.refused < 50
        node.loading_says = None
        await asyncio.gather(first, *calls)
        assert sum(node.executed.values()) == 51


async def test_the_deadline_ends_the_wait_with_what_the_node_said(sqlite_url: str) -> None:
    node = Node("a")
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")
        node.loading_says = says(retry_after=HANG)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(router).Predict(pb.PredictOptions(), timeout=0.5)
        assert is_model_loading(caught.value)
        with pytest.raises(LoadTimeout, match='node "a" is loading it'):
            await stub(router).Predict(pb.PredictOptions(), timeout=0.1)
        assert node.refused == 1


async def test_no_more_requests_wait_for_it_than_for_a_load(sqlite_url: str) -> None:
    node, few = Node("a"), replace(QUICK, max_waiting=3)
    async with fleet(sqlite_url, node, settings=few) as (router,):
        await router.load("m")
        node.loading_says = says(retry_after=HANG)
        calls = [asyncio.create_task(ask(router, "Predict"))]
        await eventually(lambda: node.refused)
        calls += [asyncio.create_task(ask(router, "Predict")) for _ in range(3)]
        (refused,), waiting = await asyncio.wait(calls, return_when="FIRST_COMPLETED")
        assert isinstance(refused.exception(), Overloaded)
        for call in waiting:
            call.cancel()
        await asyncio.wait(waiting)


@pytest.mark.parametrize("on_stale", ["return", "off"])
async def test_who_wants_no_retry_gets_the_error_at_once(sqlite_url: str, on_stale: Any) -> None:
    node = Node("a")
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")
        node.loading_says = says()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(router, "Predict", on_stale=on_stale)
        assert is_model_loading(caught.value)
        assert node.refused == 1
        assert router.table.live_count("m") == 1


async def test_a_load_that_meets_another_one_is_tried_again(sqlite_url: str) -> None:
    """The node is there, and has not failed: nothing is held against it."""
    node = Node("a")
    node.load_fails = [says(retry_after=0.1), says(rung="trailer")]
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m", timeout=HANG)
        assert len(node.loads) == 3
        assert not router.table.is_failing("m")
        assert node.healths == 0, "its answer shows that it is there"


async def test_a_node_whose_health_says_loading_is_there(sqlite_url: str) -> None:
    node = Node("a")
    async with fleet(sqlite_url, node) as (router,):
        node.health_says = says()
        router.table.nodes["a"].fresh_until = 0.0
        assert await router.probe_health("a")
        assert not router.table.nodes["a"].busy


@pytest.mark.parametrize("free", [True, False])
async def test_a_load_of_someone_else_that_hangs_is_hedged(sqlite_url: str, free: bool) -> None:
    """After `load_hedge_free` in a free slot, after `load_hedge` in that of another model.

    The replica is kept, and serves again once its node has loaded the model.
    """
    a, b = Node("a"), Node("b")
    hasty = replace(QUICK, load_hedge_free=0.1, load_hedge=0.2 if not free else HANG)
    async with fleet(sqlite_url, a, settings=hasty) as (router,), b:
        await router.load("m")
        (theirs,) = router.table.replicas("m")
        await router.heartbeat(b.heartbeat())
        if not free:
            await router.load("n")
        a.loading_says = says(retry_after=HANG)
        await asyncio.gather(*(ask(router, "Predict") for _ in range(20)))
        assert sum(b.executed.values()) == 20
        assert b.loads[-1][0] == "m"
        assert [model for model, _ in a.loads].count("m") == 1
        assert theirs.live
        assert theirs.overdue
        assert await router.registry.heals() == []
        a.loading_says, b.loading_says = None, says(retry_after=HANG)
        theirs.loading_until = theirs.loading_since  # so long ago that it is asked again
        await ask(router, "Predict")
        assert sum(a.executed.values()) == 1
        assert router.table.live_count("m") == 2


async def test_a_load_of_someone_else_is_waited_for_as_long_as_loads_take(sqlite_url: str) -> None:
    a, b = Node("a"), Node("b")
    async with fleet(sqlite_url, a, b, settings=replace(QUICK, load_hedge_free=HANG)) as (router,):
        await router.load("m")
        (entry,) = router.table.replicas("m")
        holder, other = (a, b) if entry.node.name == "a" else (b, a)
        holder.loading_says = says(retry_after=0.1)
        call = asyncio.create_task(ask(router, "Predict"))
        await eventually(lambda: holder.refused > 3)
        assert not other.loads
        holder.loading_says = None
        await call


@pytest.mark.parametrize("free", [True, False])
async def test_a_load_that_meets_one_that_hangs_is_tried_elsewhere(
    sqlite_url: str, free: bool
) -> None:
    a, b = Node("a"), Node("b")
    hasty = replace(QUICK, load_hedge_free=0.1, load_hedge=0.2 if not free else HANG)
    async with fleet(sqlite_url, b, settings=hasty) as (router,), a:
        if not free:
            await router.load("n")
        await router.heartbeat(a.heartbeat())
        a.load_fails = [says(retry_after=0.05)] * 10_000
        await ask(router, "Predict")
        assert a.loads, "it comes first"
        assert b.loads[-1][0] == "m"
        assert sum(b.executed.values()) == 1


class Guarded(BackendServicer):
    """A backend of someone else's behind the guard; loads wait for `gate`."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.loads: list[str] = []

    async def LoadModel(self, request: Any, context: Any) -> Any:
        self.loads.append(request.Model)
        await self.gate.wait()
        return pb.Result(success=True)

    async def Predict(self, request: Any, context: Any) -> Any:
        return pb.Reply(message=b"done")

    async def Health(self, request: Any, context: Any) -> Any:
        return pb.Reply(message=b"OK")


async def test_the_guard_and_the_router_wait_for_one_load(sqlite_url: str) -> None:
    """The router's own load, and then one by somebody else, with the real guard."""
    backend, request = Guarded(), pb.PredictOptions(ModelIdentity="m")
    server = grpc.aio.server(interceptors=[ModelGuard("theirs")])
    add_BackendServicer_to_server(backend, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with (
            fleet(sqlite_url) as (router,),
            grpc.aio.insecure_channel(address) as channel,
        ):
            await router.registry.add_node(address, "fake", name="theirs")
            direct = BackendStub(channel)
            call = asyncio.ensure_future(stub(router).Predict(request, timeout=HANG))
            await eventually(lambda: len(backend.loads) == 1)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await direct.Predict(request)
            assert is_model_loading(caught.value)
            assert not call.done()
            backend.gate.set()
            await call
            entry = router.table.pick("m")
            assert entry is not None

            backend.gate.clear()
            theirs = direct.LoadModel(pb.ModelOptions(Model="m"))
            await eventually(lambda: len(backend.loads) == 2)
            call = asyncio.ensure_future(stub(router).Predict(request, timeout=HANG))
            await eventually(lambda: entry.loading_until)
            backend.gate.set()
            assert (await theirs).success
            await call
            assert router.table.pick("m") is entry
            assert await router.registry.heals() == []
            assert backend.loads == ["m", "m"]
    finally:
        await server.stop(None)
