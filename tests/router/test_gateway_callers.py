"""The gateway's limits for one caller: it cannot use up what all callers share."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors_router.errors import Overloaded
from grpcerrors_router.gateway import memory
from grpcerrors_router.gateway.admission import ONE_WRITE, Admission
from grpcerrors_router.tasks import stop
from tests.router.conftest import QUICK, eventually
from tests.router.support.rawnode import LOCAL, Script, Stack, stack
from tests.router.support.relay import Relay
from tests.router.test_gateway_limits import (
    FOREIGN,
    KEY,
    SERVER_STREAM,
    UNARY,
    answered,
    reason,
    refused,
    start,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8")


@contextlib.asynccontextmanager
async def another_host(served: Stack) -> AsyncIterator[Any]:
    """Yield a channel whose connection comes from another address."""
    async with (
        Relay(served.address, source="127.0.0.2") as relay,
        grpc.aio.insecure_channel(relay.address, options=LOCAL) as channel,
    ):
        yield channel


@linux
@pytest.mark.parametrize("method", [UNARY, SERVER_STREAM, FOREIGN])
async def test_a_caller_that_uses_up_its_calls_leaves_those_of_others(
    tmp_path: Path, method: str
) -> None:
    async with (
        stack(tmp_path, settings=replace(QUICK, max_caller_calls=2)) as served,
        another_host(served) as other,
    ):
        gate = asyncio.Event()

        async def hold(_requests: AsyncIterator[bytes], context: Any) -> None:
            await gate.wait()
            await context.write(b"")

        served.node.behave = hold
        running = [start(served.through, method) for _ in range(2)]
        await until(lambda: len(served.node.seen) == 2)
        error = await refused(start(served.through, method))
        assert reason(error) == ("OVERLOADED", True)
        assert "2 calls of one caller" in str(error.details())
        running.append(start(other, method))
        await until(lambda: len(served.node.seen) == 3)
        gate.set()
        for call in running:
            assert await answered(call)
        assert await answered(start(served.through, method))


@linux
async def test_a_caller_that_uses_up_its_bytes_leaves_those_of_others(tmp_path: Path) -> None:
    async with (
        stack(tmp_path, settings=replace(QUICK, max_caller_bytes=1000)) as served,
        another_host(served) as other,
    ):
        served.node.load_gate = asyncio.Event()
        waiting = [start(served.through, UNARY, bytes(900))]
        await until(lambda: bool(served.node.loads))
        error = await refused(start(served.through, SERVER_STREAM, bytes(900)))
        assert reason(error) == ("OVERLOADED", True)
        assert "1000 bytes of messages of one caller" in str(error.details())
        waiting.append(start(other, UNARY, bytes(900)))
        served.node.load_gate.set()
        for call in waiting:
            assert await call.code() is grpc.StatusCode.OK


async def test_what_is_kept_for_a_retry_counts(tmp_path: Path) -> None:
    """Each stream keeps up to 4 MiB until it is answered; 10,000 streams would keep 40 GiB."""
    size = 100_000
    async with stack(tmp_path, settings=replace(QUICK, max_caller_bytes=5 * size)) as served:
        admission = served.server.gateway.admission
        arrived = 0

        async def count(requests: AsyncIterator[bytes], context: Any) -> None:
            nonlocal arrived
            async for _ in requests:
                arrived += 1
            await context.write(b"done")

        served.node.behave = count

        def kept(size: int) -> bool:
            return admission.all.bytes == size

        call = served.through.stream_stream(FOREIGN)(metadata=KEY)
        for number in range(1, 5):
            await call.write(bytes(size))
            await eventually(partial(kept, number * size))
        await until(lambda: arrived == 4)
        # What does not fit is not refused: the stream goes on, but is not sent again.
        for _ in range(16):
            await call.write(bytes(size))
        await until(lambda: arrived == 20)
        await eventually(lambda: admission.all.bytes == 0)
        await call.done_writing()
        assert await call.read() == b"done"
        await eventually(lambda: not admission.callers)


async def test_an_answer_counts_until_its_caller_has_it(tmp_path: Path) -> None:
    """gRPC keeps an answer that the caller does not read."""
    size = 4 * 1024 * 1024
    async with (
        stack(tmp_path, settings=replace(QUICK, max_caller_bytes=2 * size)) as served,
        Relay(served.address) as relay,
        grpc.aio.insecure_channel(relay.address, options=LOCAL) as slow,
    ):
        admission = served.server.gateway.admission
        served.node.script = Script(replies=(bytes(size),))
        gate = asyncio.Event()

        async def answer(_requests: AsyncIterator[bytes], context: Any) -> None:
            await gate.wait()
            await context.write(bytes(size))

        served.node.behave = answer
        unread = [start(slow, UNARY) for _ in range(2)]
        await until(lambda: len(served.node.seen) == 2)
        relay.freeze()
        gate.set()
        await eventually(lambda: admission.all.bytes == 2 * size)
        error = await refused(start(served.through, UNARY))
        assert reason(error) == ("OVERLOADED", True)
        # The node has executed it, so no proxy may send it again.
        trailers = dict(error.trailing_metadata())
        assert "grpcerrors-unexecuted" not in trailers
        relay.thaw()
        for call in unread:
            assert len(await call) == size
        await eventually(lambda: admission.all.bytes == 0 and not admission.callers)


def test_counts_return_to_zero_whatever_the_order() -> None:
    """Everything that is taken is given back, once, also after the end of the call."""
    settings = replace(
        QUICK, max_calls=3, max_caller_calls=2, max_buffered_bytes=300, max_caller_bytes=200
    )
    ended: list[Any] = []

    class Context:
        def add_done_callback(self, callback: Any) -> None:
            ended.append(callback)

    for order in itertools.permutations(range(3)):
        admission = Admission(settings)
        first, second = admission.call("a"), admission.call("a")
        with pytest.raises(Overloaded, match="2 calls of one caller"):
            admission.call("a")
        third = admission.call("b")
        with pytest.raises(Overloaded, match="3 calls at a time"):
            admission.call("c")
        held = first.holding(bytes(100))
        held.__enter__()
        assert second.take(100)
        assert not second.take(1)
        with (
            pytest.raises(Overloaded, match="200 bytes of messages of one caller"),
            first.holding(bytes(1)),
        ):
            pass
        assert third.take(100)
        assert not third.take(1), "the limit of all"
        third.give(60)
        third.answering(bytes(ONE_WRITE), Context())
        assert not ended, "a small answer is not counted"
        calls = [first, second, third]
        for index in order:
            calls[index].__exit__()
            calls[index].give(10)
            assert not calls[index].take(1)
        held.__exit__(None, None, None)
        assert (admission.all.calls, admission.all.bytes, admission.callers) == (0, 0, {})
    admission = Admission(QUICK)
    with admission.call("a") as call:
        call.answering(bytes(ONE_WRITE + 1), Context())
    assert admission.all.bytes == ONE_WRITE + 1
    for callback in ended:
        callback(None)
    assert (admission.all.bytes, admission.callers) == (0, {})


async def test_memory_is_given_back_after_a_burst_and_only_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    admission = Admission(QUICK)
    trims: list[int] = []
    monkeypatch.setattr(memory, "INTERVAL", 0.001)
    monkeypatch.setattr(memory, "trim", lambda: trims.append(admission.all.bytes))
    task = asyncio.create_task(memory.give_back(admission))
    with admission.call("a") as call:
        with call.holding(bytes(1000)):
            pass
        assert admission.peak == 1000
        with call.holding(bytes(memory.LARGE + 1)):
            assert admission.peak == memory.LARGE + 1
            await asyncio.sleep(0.05)
            assert not trims, "it is in use, or was little"
    await eventually(lambda: trims)
    await asyncio.sleep(0.05)
    assert trims == [0], "once"
    assert admission.peak == 0
    await stop([task])


def test_this_system_gives_memory_back() -> None:
    memory.trim()
