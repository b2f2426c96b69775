"""Retries: which requests are retried, and what evidence does to the registry."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import classify, is_model_not_loaded
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from tests.router.conftest import QUICK, Recorder, fleet
from tests.router.support.nodes import REQUEST_ID, Node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from grpcerrors_router import SmartRouter


def stub(router: SmartRouter, **options: Any) -> Any:
    return BackendStub(router.channel("m", **options))


async def requests(count: int, size: int = 0) -> AsyncIterator[Any]:
    for _ in range(count):
        yield pb.TranscriptLiveRequest(config=pb.TranscriptLiveConfig(language="x" * size))


async def end_of(call: Any) -> Any:
    """Return the answer or the error of a call."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return error


async def test_return_gives_the_error_and_the_next_request_works(sqlite_url: str) -> None:
    node = Node()
    async with fleet(sqlite_url, node, on_stale="return") as (router,):
        await stub(router).Predict(pb.PredictOptions())
        node.evict("m")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(router).Predict(pb.PredictOptions())
        assert is_model_not_loaded(caught.value)
        await stub(router).Predict(pb.PredictOptions())
        assert len(node.loads) == 2


async def test_off_heals_nothing(sqlite_url: str) -> None:
    node = Node()
    async with fleet(sqlite_url, node, on_stale="off") as (router,):
        await stub(router).Predict(pb.PredictOptions())
        node.evict("m")
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub(router).Predict(pb.PredictOptions())
        assert router.table.pick("m") is not None
        assert len(node.loads) == 1


@pytest.mark.parametrize("die_after", [1, 2])
async def test_nothing_is_replayed_after_the_first_message(sqlite_url: str, die_after: int) -> None:
    """Invariant 8."""
    node = Node()
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")
        node.die_after = die_after
        call = stub(router).PredictStream(pb.PredictOptions(), metadata=((REQUEST_ID, "r"),))
        for _ in range(die_after):
            assert await call.read() is not grpc.aio.EOF
        end = await end_of(call.read())
        assert node.executed["r"] == node.seen["r"] == 1, "invariant 8"
        assert is_model_not_loaded(end)
        assert router.table.pick("m") is None, "the row is dropped all the same"


async def test_what_has_started_is_never_replayed(sqlite_url: str) -> None:
    """Invariant 7."""
    node = Node()
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")
        node.evict("m")
        node.started_mark = True
        call = stub(router).Predict(pb.PredictOptions(), metadata=((REQUEST_ID, "r"),))
        end = await end_of(call)
        assert node.seen["r"] == 1, "invariant 7"
        assert classify(end).started
        assert router.table.pick("m") is None


async def test_a_transport_error_is_never_replayed(sqlite_url: str) -> None:
    node = Node()
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")
        node.fail = (grpc.StatusCode.UNAVAILABLE, "Socket closed")
        with pytest.raises(grpc.aio.AioRpcError):
            await stub(router).Predict(pb.PredictOptions(), metadata=((REQUEST_ID, "r"),))
        assert node.seen["r"] == 1
        assert len(list(router.table.replicas("m"))) == 1


@pytest.mark.parametrize("stale", [3, 4])
async def test_four_attempts_then_the_original_error(sqlite_url: str, stale: int) -> None:
    nodes = [Node(name) for name in "abcd"[:stale]]
    async with fleet(sqlite_url, *nodes) as (router,):
        for node in nodes:
            await router.registry.set_node_model(node.name, "m")
        call: Any = stub(router).Predict(pb.PredictOptions(), metadata=((REQUEST_ID, "r"),))
        end = await end_of(call)
        assert sum(node.seen["r"] for node in nodes) == QUICK.attempts == 4
        if stale == 3:
            assert isinstance(end, pb.Reply), "the fourth attempt loads the model"
        else:
            assert is_model_not_loaded(end)
            assert is_model_not_loaded(end.__cause__), "the first error, from the last"
            assert router.table.pick("m") is None, "all rows are dropped"


async def test_the_original_error_comes_out_when_no_other_replica_can_be_had(
    sqlite_url: str,
) -> None:
    node = Node()
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")
        node.evict("m")
        node.load_error = "out of memory"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(router).Predict(pb.PredictOptions())
        assert is_model_not_loaded(caught.value)


async def test_a_stream_beyond_the_replay_buffer_is_not_replayed(sqlite_url: str) -> None:
    node = Node()
    small = replace(QUICK, replay_bytes=100)
    async with fleet(sqlite_url, node, settings=small) as (router,):
        for size, healed in ((10, True), (200, False)):
            await router.load("m")
            node.evict("m")
            call = stub(router).AudioTranscriptionLive(requests(3, size))
            if healed:
                assert len([message async for message in call]) == 5
            else:
                end = await end_of(call.read())
                assert is_model_not_loaded(end), "more than the buffer holds is not replayed"


async def test_a_healed_stream_delivers_every_request_message_once(sqlite_url: str) -> None:
    node = Node()
    async with fleet(sqlite_url, node) as (router,):
        for _ in range(20):
            await router.load("m")
            node.evict("m")
            # The node sends three messages, and one more for each further request.
            got = [m async for m in stub(router).AudioTranscriptionLive(requests(8))]
            assert len(got) == 3 + 7


async def test_the_callers_deadline_holds_over_both_tries(sqlite_url: str) -> None:
    node = Node()
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")
        node.evict("m")
        node.load_delay = 5
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(router).Predict(pb.PredictOptions(), timeout=0.3)
        assert is_model_not_loaded(caught.value)


async def test_a_burst_at_one_stale_row_makes_one_drop_and_one_load(url: str) -> None:
    """Invariant 13."""
    node, events = Node(slots=1), Recorder()
    async with fleet(url, node, events=events) as (router,):
        await router.load("m")
        node.evict("m")
        calls = [stub(router).Predict(pb.PredictOptions(), timeout=30) for _ in range(100)]
        assert len(await asyncio.gather(*calls)) == 100
        assert len(node.loads) == 2
        assert events.count("heal") == 1
        heals = await router.registry.heals()
        assert [heal.evidence for heal in heals] == ["details"]


async def test_a_late_error_never_removes_a_later_generation(url: str) -> None:
    """Invariant 1."""
    node, events = Node("a"), Recorder()
    async with fleet(url, node, events=events) as (router,):
        await router.load("m")
        old = router.table.pick("m")
        assert old is not None
        node.evict("m")
        error = await _stale_error(node)
        await stub(router).Predict(pb.PredictOptions())
        new = router.table.pick("m")
        assert new is not None
        assert new.generation > old.generation
        await router._dispatcher.reconciler.reconcile(error, old, "/backend.Backend/Predict")
        assert not await router.registry.remove_node_model("a", "m", old.generation)
        assert router.table.pick("m") is new
        assert (await router.registry.snapshot()).nodes[0].replicas[0].generation == new.generation
        assert events.count("late_error") == 1


async def _stale_error(node: Node) -> grpc.aio.AioRpcError:
    async with grpc.aio.insecure_channel(node.address) as channel:
        try:
            await BackendStub(channel).Predict(pb.PredictOptions())
        except grpc.aio.AioRpcError as error:
            return error
    raise AssertionError


async def test_the_retry_budget_bounds_what_is_sent_again(sqlite_url: str) -> None:
    """Invariant 12."""
    node, events = Node(), Recorder()
    tight = replace(QUICK, retry_floor=0.3, retry_ratio=0.0, retry_wait=0.0, storm_drops=1000)
    async with fleet(sqlite_url, node, settings=tight, events=events) as (router,):
        for _ in range(10):
            await router.load("m")
            node.evict("m")
            await asyncio.wait({asyncio.ensure_future(stub(router).Predict(pb.PredictOptions()))})
        assert events.count("retry") == 3


async def test_a_node_that_always_loses_the_model_is_left_alone(sqlite_url: str) -> None:
    """Invariant 11: after several drops, the model is quarantined instead of reloaded."""
    node, drops = Node(), QUICK.storm_drops
    async with fleet(sqlite_url, node, on_stale="return") as (router,):
        for _ in range(drops):
            await router.load("m")
            node.evict("m")
            with pytest.raises(grpc.aio.AioRpcError):
                await stub(router).Predict(pb.PredictOptions())
        end = await end_of(stub(router).Predict(pb.PredictOptions()))
        assert len(node.loads) == drops, "invariant 11"
        assert end.code() is grpc.StatusCode.UNAVAILABLE
        assert "lost it again and again" in end.details()
