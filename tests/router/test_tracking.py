"""In-flight counts: each call counts up and down exactly once, however it ends (invariant 9)."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from tests.router.conftest import HANG, Recorder, eventually, fleet
from tests.router.support.nodes import Node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from grpcerrors_router import SmartRouter


def stub(router: SmartRouter, **options: Any) -> Any:
    return BackendStub(router.channel("m", **options))


async def forever() -> AsyncIterator[Any]:
    yield pb.TranscriptLiveRequest()
    await asyncio.Event().wait()


async def test_counts_are_up_during_a_call_and_down_after(sqlite_url: str) -> None:
    node = Node()
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")
        node.work = 0.2
        calls = [stub(router).Predict(pb.PredictOptions()) for _ in range(20)]
        await eventually(lambda: router.table.in_flight() == 20)
        entry = router.table.pick("m")
        assert entry is not None
        assert entry.in_flight == 20
        await asyncio.gather(*calls)
        assert router.table.in_flight() == entry.in_flight == 0


@pytest.mark.parametrize("rpc", ["Predict", "PredictStream"])
async def test_a_cancelled_call_is_counted_out(sqlite_url: str, rpc: str) -> None:
    node = Node()
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")
        entry = router.table.pick("m")
        assert entry is not None
        node.work = 30
        call = getattr(stub(router), rpc)(pb.PredictOptions())
        await eventually(lambda: router.table.in_flight() == 1)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await (call.read() if rpc == "PredictStream" else call)
        await eventually(lambda: router.table.in_flight() == 0)
        assert entry.in_flight == 0
        assert call.cancelled()
        assert call.done()
        assert await call.code() is grpc.StatusCode.CANCELLED
        await eventually(lambda: not node.running["m"])


async def test_a_cancelled_awaiter_cancels_the_call(sqlite_url: str) -> None:
    node = Node()
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")
        node.work = 30
        task = asyncio.ensure_future(stub(router).Predict(pb.PredictOptions()))
        await eventually(lambda: node.running["m"] == 1)
        task.cancel()
        await eventually(lambda: router.table.in_flight() == 0 and not node.running["m"])


@pytest.mark.parametrize("rpc", ["Predict", "PredictStream"])
async def test_a_deadline_counts_out(sqlite_url: str, rpc: str) -> None:
    node = Node()
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")
        node.work = 30
        call = getattr(stub(router), rpc)(pb.PredictOptions(), timeout=0.1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call.read() if rpc == "PredictStream" else call)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert router.table.in_flight() == 0


@pytest.mark.parametrize("bidi", [False, True])
async def test_an_abandoned_stream_is_cancelled_and_counted_out(
    sqlite_url: str, bidi: bool
) -> None:
    node = Node()
    node.chunks = 1_000_000
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")
        if bidi:
            call = stub(router).AudioTranscriptionLive(forever())
        else:
            call = stub(router).PredictStream(pb.PredictOptions())
        assert await call.read() is not grpc.aio.EOF
        assert router.table.in_flight() == 1
        del call
        gc.collect()
        await eventually(lambda: router.table.in_flight() == 0 and not node.running["m"])


async def test_leaving_the_loop_early_abandons_the_stream(sqlite_url: str) -> None:
    node = Node()
    node.chunks = 1_000_000
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")
        async for _ in stub(router).PredictStream(pb.PredictOptions()):
            break
        gc.collect()
        await eventually(lambda: router.table.in_flight() == 0 and not node.running["m"])


async def test_a_message_that_cannot_be_serialised_is_counted_out(sqlite_url: str) -> None:
    async with fleet(sqlite_url, Node()) as (router,):
        await router.load("m")

        def refuse(_: object) -> bytes:
            msg = "not today"
            raise ValueError(msg)

        method = router.channel("m").unary_unary("/backend.Backend/Predict", refuse, None)
        # grpc decides which error this raises.
        await asyncio.wait({asyncio.ensure_future(method(object()))})
        await eventually(lambda: router.table.in_flight() == 0)


async def test_a_route_reserves_and_gives_back(sqlite_url: str) -> None:
    async with fleet(sqlite_url, Node("a"), Node("b")) as (router,):
        async with router.route("m") as channel:
            assert router.table.in_flight() == 1
            reply = await BackendStub(channel).Predict(pb.PredictOptions())
            assert isinstance(reply, pb.Reply)
            assert router.table.in_flight() == 0
        async with router.route("m"):
            assert router.table.in_flight() == 1
        assert router.table.in_flight() == 0


async def test_write_style_reaches_the_node_and_the_half_close_is_kept(sqlite_url: str) -> None:
    async with fleet(sqlite_url, Node()) as (router,):
        call = stub(router).AudioTranscriptionLive()
        for _ in range(3):
            await call.write(pb.TranscriptLiveRequest())
        await call.done_writing()
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(pb.TranscriptLiveRequest())
        assert len([message async for message in call]) == 3 + 2
        assert await call.code() is grpc.StatusCode.OK
        assert router.table.in_flight() == 0


async def test_a_blocked_writer_learns_of_the_end(sqlite_url: str) -> None:
    node = Node()
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")
        node.fail = (grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
        call = stub(router).AudioTranscriptionLive()

        async def write() -> None:
            while True:
                await call.write(pb.TranscriptLiveRequest())

        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            await asyncio.wait_for(write(), 10)
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await call.details() == "enough"


@pytest.mark.parametrize("rpc", ["AudioTranscriptionLive", "Upload"])
async def test_a_write_that_is_given_up_cancels_the_call(sqlite_url: str, rpc: str) -> None:
    """As in grpc.aio, the stream is not left with half a message."""
    node = Node()
    node.load_delay = HANG
    async with fleet(sqlite_url, node) as (router,):
        if rpc == "Upload":
            call = router.channel("m").stream_unary("/backend.Backend/Upload")()
        else:
            call = stub(router).AudioTranscriptionLive()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await call.write(pb.TranscriptLiveRequest())
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(pb.TranscriptLiveRequest())
        await eventually(call.done)
        assert call.cancelled()
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert router.table.in_flight() == 0


async def test_every_call_names_its_model_and_keeps_the_callers_metadata(sqlite_url: str) -> None:
    node = Node()
    async with fleet(sqlite_url, node) as (router,):
        told = (("x-request-id", "r1"),)
        await stub(router).Predict(pb.PredictOptions(), metadata=told)
        assert node.executed["r1"] == 1


async def test_attempts_are_reported_with_their_code(sqlite_url: str) -> None:
    node, events = Node("a"), Recorder()
    async with fleet(sqlite_url, node, events=events) as (router,):
        await stub(router).Predict(pb.PredictOptions())
        node.evict("m")
        await stub(router).Predict(pb.PredictOptions())
    requests = [args[:4] for name, args in events.seen if name == "request"]
    ok, stale = grpc.StatusCode.OK, grpc.StatusCode.FAILED_PRECONDITION
    method = "/backend.Backend/Predict"
    assert requests == [("m", "a", method, code) for code in (ok, stale, ok)]
    assert events.count("heal") == events.count("retry") == 1
    assert events.count("load_started") == events.count("load_finished") == 2


# The interface of grpc.aio


async def test_a_call_answers_what_grpc_aios_own_does(sqlite_url: str) -> None:
    async with fleet(sqlite_url, Node()) as (router,):
        ended: list[Any] = []
        call = stub(router).Predict(pb.PredictOptions(), timeout=HANG)
        call.add_done_callback(ended.append)
        assert not call.done()
        assert not call.cancelled()
        assert 0 < call.time_remaining() <= HANG
        await call.wait_for_connection()
        assert isinstance(await call, pb.Reply)
        assert call.done()
        assert not call.cancel()
        assert await call.details() == ""
        assert len(await call.initial_metadata()) == 0
        await eventually(lambda: ended == [call])
        assert stub(router).Predict(pb.PredictOptions()).time_remaining() is None


async def test_a_call_that_reached_no_node_has_a_status_too(sqlite_url: str) -> None:
    async with fleet(sqlite_url) as (router,):
        call = BackendStub(router.channel("nobody")).PredictStream(pb.PredictOptions())
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        assert await call.code() is grpc.StatusCode.NOT_FOUND
        assert "unknown model" in await call.details()
        assert len(await call.initial_metadata()) == 0
        assert any(key == "grpc-status-details-bin" for key, _ in await call.trailing_metadata())
        with pytest.raises(grpc.aio.AioRpcError):
            await call.wait_for_connection()
        cancelled = stub(router).Predict(pb.PredictOptions())
        assert cancelled.cancel()
        assert await cancelled.code() is grpc.StatusCode.CANCELLED
        assert await cancelled.details() == "Locally cancelled by application!"
        assert len(await cancelled.trailing_metadata()) == 0


async def test_writing_and_an_iterator_are_not_mixed(sqlite_url: str) -> None:
    async with fleet(sqlite_url, Node()) as (router,):
        call = stub(router).AudioTranscriptionLive(iter([pb.TranscriptLiveRequest()]))
        with pytest.raises(grpc.aio.UsageError):
            await call.write(pb.TranscriptLiveRequest())
        with pytest.raises(grpc.aio.UsageError):
            await call.done_writing()
        assert len([message async for message in call]) == 3
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(pb.TranscriptLiveRequest())


async def test_a_channel_is_ready_when_a_replica_can_be_picked(sqlite_url: str) -> None:
    async with fleet(sqlite_url, Node()) as (router,), router.channel("m") as channel:
        assert channel.get_state() is grpc.ChannelConnectivity.IDLE
        waiting = asyncio.ensure_future(
            channel.wait_for_state_change(grpc.ChannelConnectivity.IDLE)
        )
        await channel.channel_ready()
        await waiting
        assert channel.get_state() is grpc.ChannelConnectivity.READY
        assert router.table.in_flight() == 0


async def test_a_reserved_replica_is_given_back_when_its_call_is_cancelled_at_once(
    sqlite_url: str,
) -> None:
    async with fleet(sqlite_url, Node()) as (router,), router.route("m") as channel:
        call = BackendStub(channel).Predict(pb.PredictOptions())
        assert router.table.in_flight() == 1
        call.cancel()
        await eventually(lambda: router.table.in_flight() == 0)


async def test_a_reserved_replica_that_has_gone_is_replaced(sqlite_url: str) -> None:
    node = Node()
    async with fleet(sqlite_url, node) as (router,), router.route("m") as channel:
        node.evict("m")
        await stub(router).Predict(pb.PredictOptions())
        assert isinstance(await BackendStub(channel).Predict(pb.PredictOptions()), pb.Reply)
        assert router.table.in_flight() == 0
        assert len(node.loads) == 2
