"""Calls through the gateway: deadlines, cancellation, back pressure, heals and lost nodes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import classify, explain, is_model_not_loaded, model_not_loaded
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from tests.router.support.rawnode import SERVICE, Pairs, Script, Stack, stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

KEY = (("x-model-id", "m"),)
UNARY = f"{SERVICE}Predict"
SERVER_STREAM = f"{SERVICE}PredictStream"
BIDI = f"{SERVICE}AudioTranscriptionLive"
FOREIGN = "/other.Service/Anything"
PATIENCE = 30.0
STALE = model_not_loaded("raw")
PROOF: Any = tuple(STALE.trailing_metadata)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(tmp_path) as made:
        yield made


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.01)


def start(channel: Any, method: str, **options: Any) -> Any:
    """Start a call of any method, with the method's own RPC shape."""
    if method == UNARY:
        return channel.unary_unary(method)(b"", metadata=KEY, **options)
    if method == SERVER_STREAM:
        return channel.unary_stream(method)(b"", metadata=KEY, **options)
    return channel.stream_stream(method)(metadata=KEY, **options)


async def stall(requests: AsyncIterator[bytes], _context: Any) -> None:
    async for _ in requests:
        pass
    await asyncio.Event().wait()


async def test_the_deadline_travels_and_ends_the_call(served: Stack) -> None:
    await start(served.through, UNARY)  # loads the model, which is not what the time is for
    served.node.behave = stall
    methods = (UNARY, SERVER_STREAM, BIDI, FOREIGN)
    for call in [start(served.through, method, timeout=3.0) for method in methods]:
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    _, *seen = served.node.seen
    assert {each.method for each in seen} == set(methods)
    for each in seen:
        assert each.deadline is not None
        assert 0 < each.deadline <= 3.1  # gRPC rounds up what it sends
        await asyncio.wait_for(each.ended.wait(), PATIENCE)
    await until(lambda: served.router.table.in_flight() == 0)


async def test_no_deadline_stays_none(served: Stack) -> None:
    await start(served.through, UNARY)
    assert served.node.seen[0].deadline is None


@pytest.mark.parametrize("method", [UNARY, SERVER_STREAM, BIDI, FOREIGN])
async def test_a_cancelled_call_is_cancelled_at_the_node(served: Stack, method: str) -> None:
    served.node.behave = stall
    call = start(served.through, method)
    await until(lambda: len(served.node.seen) == 1)
    call.cancel()
    (seen,) = served.node.seen
    await asyncio.wait_for(seen.ended.wait(), PATIENCE)
    assert seen.cancelled
    await until(lambda: served.router.table.in_flight() == 0)


async def test_a_call_cancelled_while_its_model_loads_reaches_no_node(served: Stack) -> None:
    served.node.load_gate = asyncio.Event()
    call = start(served.through, UNARY)
    await until(lambda: bool(served.node.loads))
    call.cancel()
    served.node.load_gate.set()
    await start(served.through, UNARY)  # the load went on: the next one needs no other
    assert len(served.node.loads) == 1
    assert len(served.node.seen) == 1


@pytest.mark.parametrize("method", [BIDI, FOREIGN])
async def test_a_conversation_flows_both_ways_as_it_happens(served: Stack, method: str) -> None:
    async def echo(requests: AsyncIterator[bytes], context: Any) -> None:
        await context.send_initial_metadata((("k", "early"),))
        async for message in requests:
            await context.write(message + b"!")
        context.set_trailing_metadata((("k", "late"),))

    served.node.behave = echo
    call = start(served.through, method)
    # Before any message: a caller may wait for the initial metadata before it writes.
    assert ("k", "early") in tuple(await asyncio.wait_for(call.initial_metadata(), PATIENCE))
    for word in (b"a", b"b", b"c"):
        await call.write(word)
        assert await call.read() == word + b"!"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert ("k", "late") in tuple(await call.trailing_metadata())


async def test_an_answer_may_come_before_the_last_request(served: Stack) -> None:
    async def hang_up(requests: AsyncIterator[bytes], context: Any) -> None:
        await anext(requests)
        await context.write(b"enough")

    served.node.behave = hang_up
    call = start(served.through, BIDI)
    await call.write(b"x")
    assert await call.read() == b"enough"
    assert await call.code() is grpc.StatusCode.OK
    await until(lambda: served.router.table.in_flight() == 0)


@pytest.mark.parametrize("method", [SERVER_STREAM, FOREIGN])
async def test_a_slow_reader_holds_the_node_back(served: Stack, method: str) -> None:
    written = 0
    size = 256 * 1024

    async def flood(requests: AsyncIterator[bytes], context: Any) -> None:
        nonlocal written
        async for _ in requests:
            break
        while True:
            await context.write(bytes(size))
            written += 1

    served.node.behave = flood
    call = start(served.through, method)
    if method == FOREIGN:
        await call.write(b"")
    await call.read()
    # The stream comes to rest, since flow control limits what is buffered between node and reader.
    # Checking too early would only weaken the check.
    level = -1
    async with asyncio.timeout(PATIENCE):
        while written != level:
            level = written
            await asyncio.sleep(0.3)
    assert written * size < 64 * 1024 * 1024
    for _ in range(20):
        await call.read()
    await until(lambda: written > level)
    call.cancel()


async def test_a_slow_node_holds_the_writer_back(served: Stack) -> None:
    served.node.behave = lambda _requests, _context: asyncio.Event().wait()  # type: ignore[assignment,return-value]
    call = start(served.through, FOREIGN)
    sent = 0
    size = 256 * 1024
    try:
        while sent < 1000:
            await asyncio.wait_for(call.write(bytes(size)), 1.0)  # too early is no failure
            sent += 1
    except TimeoutError:
        pass
    assert sent * size < 64 * 1024 * 1024
    call.cancel()


@pytest.mark.parametrize("method", [UNARY, SERVER_STREAM, BIDI, FOREIGN])
async def test_a_stale_replica_heals_unseen(served: Stack, method: str) -> None:
    async def forgetful(requests: AsyncIterator[bytes], context: Any) -> None:
        heard = [message async for message in requests]
        if len(served.node.loads) == 1:
            await context.abort(STALE.code, STALE.details, PROOF)
        await context.write(b"".join(heard) + b"done")

    served.node.behave = forgetful
    call = served.through.stream_stream(method)(iter([b"abc"]), metadata=KEY)
    assert [reply async for reply in call] == [b"abcdone"]
    assert len(served.node.loads) == 2
    assert [heal.evidence for heal in await served.router.registry.heals()] == ["details"]


@pytest.mark.parametrize("method", [UNARY, SERVER_STREAM, BIDI, FOREIGN])
async def test_with_return_the_caller_gets_the_original_error(tmp_path: Path, method: str) -> None:
    trailing: Pairs = (*PROOF, ("k-bin", b"\x00\xff"), ("k", "1"), ("k", "2"))
    async with stack(tmp_path, on_stale="return") as served:
        served.node.script = Script((), (), STALE.code, STALE.details, trailing)
        call = served.through.stream_stream(method)(iter([b"abc"]), metadata=KEY)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert is_model_not_loaded(caught.value)
        assert caught.value.code() is STALE.code
        assert caught.value.details() == STALE.details
        assert sorted(map(tuple, caught.value.trailing_metadata()), key=lambda pair: pair[0]) == (
            sorted(trailing, key=lambda pair: pair[0])
        )
        assert not list(served.router.table.replicas("m"))
        served.node.script = Script()
        call = served.through.stream_stream(method)(iter([b"abc"]), metadata=KEY)
        assert await call.read() == b""


async def test_after_the_first_message_nothing_is_sent_again(served: Stack) -> None:
    served.node.script = Script((), (b"1", b"2"), STALE.code, STALE.details, PROOF)
    call = start(served.through, SERVER_STREAM)
    assert [await call.read(), await call.read()] == [b"1", b"2"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert is_model_not_loaded(caught.value)
    assert len(served.node.seen) == 1
    assert len(await served.router.registry.heals()) == 1


async def test_a_node_that_dies_fails_its_calls_and_no_others(served: Stack) -> None:
    second = await served.add_node()
    served.node.behave = second.behave = stall
    calls = []
    async with asyncio.timeout(PATIENCE):
        # The first call loads the only replica; its node is the one that dies.
        calls.append(start(served.through, UNARY))
        await until(lambda: bool(served.node.seen or second.seen))
    lost, kept = (served.node, second) if served.node.seen else (second, served.node)
    kept.behave = None
    kept.script = Script(replies=(b"alive",))
    await lost.server.stop(0)
    for call in calls:
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                assert await start(served.through, UNARY) == b"alive"
                break
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017
    await kept.server.stop(0)
    await until(lambda: served.router.table.in_flight() == 0)


async def test_many_at_once_on_a_cold_model_make_one_load(served: Stack) -> None:
    served.node.script = Script(replies=(pb.Reply(message=b"hi").SerializeToString(),))
    stub = BackendStub(served.through)
    request = pb.PredictOptions(ModelIdentity="m")
    replies = await asyncio.gather(*(stub.Predict(request) for _ in range(100)))
    assert {reply.message for reply in replies} == {b"hi"}
    assert served.node.loads == ["m"]
    assert served.router.table.in_flight() == 0


@pytest.mark.parametrize("method", [UNARY, SERVER_STREAM, BIDI])
async def test_a_refusal_by_every_node_says_so_to_a_proxy(served: Stack, method: str) -> None:
    served.node.script = Script(replies=(), code=STALE.code, details=STALE.details, trailing=PROOF)
    error = await ended(start(served.through, method))
    assert dict(error.trailing_metadata())["grpcerrors-unexecuted"] == "MODEL_NOT_LOADED"


async def test_nothing_is_unexecuted_once_a_message_was_delivered(served: Stack) -> None:
    served.node.script = Script(
        replies=(b"",), code=STALE.code, details=STALE.details, trailing=(*PROOF, ("x-own", "1"))
    )
    error = await ended(start(served.through, SERVER_STREAM))
    trailers = dict(error.trailing_metadata())
    assert {"grpc-status-details-bin", "x-own"} <= trailers.keys()
    assert "grpcerrors-unexecuted" not in trailers


async def test_nothing_is_unexecuted_whose_handler_had_begun(served: Stack) -> None:
    begun = model_not_loaded("raw", started=True)
    contradiction = (*begun.trailing_metadata, ("grpcerrors-unexecuted", "MODEL_NOT_LOADED"))
    served.node.script = Script(code=begun.code, details=begun.details, trailing=contradiction)
    error = await ended(start(served.through, UNARY))
    assert classify(error).started
    assert "grpcerrors-unexecuted" not in dict(error.trailing_metadata())


@pytest.mark.parametrize("reason", ["NO_CAPACITY", "LOAD_FAILED"])
async def test_a_refusal_by_the_router_says_whether_another_router_may_serve(
    served: Stack, reason: str
) -> None:
    if reason == "NO_CAPACITY":
        for name in served.router.table.nodes:
            await served.router.registry.set_draining(name, True)
        await served.router.watcher.catch_up()
    else:
        served.node.load_error = "out of memory"
    error = await ended(start(served.through, UNARY))
    assert reason in explain(error)
    trailers = dict(error.trailing_metadata())
    assert ("grpcerrors-unexecuted" in trailers) is (reason == "NO_CAPACITY")


async def ended(call: Any) -> grpc.aio.AioRpcError:
    """Return the error with which a call of any shape ends."""

    async def finish() -> None:
        if isinstance(call, grpc.aio.UnaryUnaryCall):
            await call
            return
        if isinstance(call, grpc.aio.StreamStreamCall):
            await call.done_writing()
        async for _ in call:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await finish()
    return caught.value
