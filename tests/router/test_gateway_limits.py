"""The gateway's limits: calls, bytes, and requests that it has forwarded before."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from tests.router.conftest import QUICK
from tests.router.support.processes import fleet
from tests.router.support.rawnode import SERVICE, RawNode, Script, Stack, stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

KEY = (("x-model-id", "m"),)
UNARY = f"{SERVICE}Predict"
SERVER_STREAM = f"{SERVICE}PredictStream"
FOREIGN = "/other.Service/Anything"
PATIENCE = 60.0


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.01)


def reason(error: grpc.aio.AioRpcError) -> tuple[str, bool]:
    """Return the reason of a typed error, and whether it has RetryInfo."""
    status = rpc_status.from_call(error)
    assert status is not None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status.details[0].Unpack(info)
    return info.reason, any(detail.Unpack(retry) for detail in status.details)


def start(channel: Any, method: str, request: bytes = b"") -> Any:
    if method == UNARY:
        return channel.unary_unary(method)(request, metadata=KEY)
    if method == SERVER_STREAM:
        return channel.unary_stream(method)(request, metadata=KEY)
    return channel.stream_stream(method)(iter([request]), metadata=KEY)


async def answered(call: Any) -> bool:
    """Read a whole answer."""
    if isinstance(call, grpc.aio.UnaryUnaryCall):
        await call
    else:
        async for _ in call:
            pass
    return await call.code() is grpc.StatusCode.OK


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answered(call)
    return caught.value


@pytest.mark.slow
async def test_thousands_of_calls_at_once_are_all_answered(tmp_path: Path) -> None:
    """By default, gRPC answers CANCELLED when more than 1,000 calls wait to be accepted."""
    async with fleet(tmp_path, '[models]\na = { backend = "echo" }\n') as world:
        gateway = await world.gateway()
        await world.node(gateway.address, "n")
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            stub = BackendStub(channel)
            request = pb.PredictOptions(Prompt="x", ModelIdentity="a")
            await stub.Predict(request, timeout=PATIENCE)
            calls = [stub.Predict(request, timeout=240) for _ in range(4000)]
            codes = [await call.code() for call in calls]
        assert set(codes) == {grpc.StatusCode.OK}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_downloads_that_nobody_reads_do_not_fill_the_memory(tmp_path: Path) -> None:
    """With windows that grow to 16 MiB per stream, 50 downloads of 50 MB took 1.7 GiB."""
    size, count, downloads = 1_000_000, 50, 50
    sent = 0

    async def send(_requests: AsyncIterator[bytes], context: Any) -> None:
        nonlocal sent
        for _ in range(count):
            await context.write(bytes(size))
            sent += size

    async with fleet(tmp_path, '[models]\nm = { backend = "raw" }\n') as world:
        node = RawNode()
        await node.start()
        await world.registry.add_node(node.address, "raw")
        gateway = await world.gateway()
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            await channel.unary_unary(UNARY)(b"", metadata=KEY)
            node.behave = send
            before = resident_mib(gateway.process.pid)
            unread = [start(channel, SERVER_STREAM) for _ in range(downloads)]
            with contextlib.suppress(TimeoutError):  # the node may be held back
                async with asyncio.timeout(20):
                    await until(lambda: sent == size * count * downloads)
            assert sent > size * downloads
            assert resident_mib(gateway.process.pid) - before < 500
            for call in unread:
                call.cancel()
        await node.server.stop(0)


def resident_mib(process: int) -> int:
    text = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", text)[0]) // 1024


@pytest.mark.parametrize("method", [UNARY, SERVER_STREAM, FOREIGN])
async def test_a_call_beyond_the_limit_says_so_and_when_to_retry(
    tmp_path: Path, method: str
) -> None:
    async with stack(tmp_path, settings=replace(QUICK, max_calls=2)) as served:
        gate = asyncio.Event()

        async def hold(_requests: AsyncIterator[bytes], context: Any) -> None:
            await gate.wait()
            await context.write(b"")

        served.node.behave = hold
        running = [start(served.through, method) for _ in range(2)]
        await until(lambda: len(served.node.seen) == 2)
        error = await refused(start(served.through, method))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason(error) == ("OVERLOADED", True)
        assert len(served.node.seen) == 2
        labels = {"model": "", "reason": "OVERLOADED"}
        assert served.metrics.registry.get_sample_value("router_refused_total", labels) == 1
        gate.set()
        for call in running:
            assert await answered(call)
        assert await answered(start(served.through, method))


async def test_requests_that_wait_for_a_model_are_bounded_in_bytes(tmp_path: Path) -> None:
    async with stack(tmp_path, settings=replace(QUICK, max_buffered_bytes=1000)) as served:
        served.node.load_gate = asyncio.Event()
        waiting = start(served.through, UNARY, bytes(900))
        await until(lambda: bool(served.node.loads))
        error = await refused(start(served.through, SERVER_STREAM, bytes(900)))
        assert reason(error) == ("OVERLOADED", True)
        served.node.load_gate.set()
        assert await waiting.code() is grpc.StatusCode.OK
        # A single message always passes, however small the limit.
        assert await start(served.through, UNARY, bytes(5000)).code() is grpc.StatusCode.OK


async def test_a_download_that_nobody_reads_takes_one_message_not_the_memory(
    tmp_path: Path,
) -> None:
    size = 4 * 1024 * 1024
    async with stack(tmp_path, settings=replace(QUICK, max_buffered_bytes=2 * size)) as served:
        served.node.script = Script(replies=(bytes(size),) * 10)
        unread = [start(served.through, SERVER_STREAM) for _ in range(3)]
        codes = [asyncio.ensure_future(call.code()) for call in unread]
        # Two calls use up the limit; the message of the third is refused.
        done, _ = await asyncio.wait(codes, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE)
        (code,) = done
        assert code.result() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in unread:
            call.cancel()
        await asyncio.gather(*codes)
        served.node.script = Script(replies=(b"x",))
        await until(lambda: not served.router.table.in_flight())
        assert await start(served.through, SERVER_STREAM).read() == b"x"


async def test_an_upload_that_the_node_does_not_read_is_bounded_too(tmp_path: Path) -> None:
    size = 4 * 1024 * 1024
    async with stack(tmp_path, settings=replace(QUICK, max_buffered_bytes=2 * size)) as served:

        async def ignore(_requests: AsyncIterator[bytes], _context: Any) -> None:
            await asyncio.Event().wait()

        served.node.behave = ignore
        uploads = [
            served.through.stream_stream(FOREIGN)(iter([bytes(size)] * 10), metadata=KEY)
            for _ in range(3)
        ]
        codes = [asyncio.ensure_future(call.code()) for call in uploads]
        done, _ = await asyncio.wait(codes, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE)
        # grpc.aio's client says INTERNAL if the server ends the call while it still writes.
        ended = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL}
        assert {code.result() for code in done} <= ended
        labels = {"model": "m", "reason": "OVERLOADED"}
        refusals = served.metrics.registry.get_sample_value("router_refused_total", labels)
        assert refusals is not None
        assert refusals >= 1
        for call in uploads:
            call.cancel()
        await asyncio.gather(*codes)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(tmp_path) as made:
        yield made


@pytest.mark.parametrize("method", [UNARY, SERVER_STREAM, FOREIGN])
async def test_a_request_that_comes_back_is_refused(served: Stack, method: str) -> None:
    """A node at the gateway's own address that reports the model."""
    registry = served.router.registry
    await registry.remove_node("raw-1")
    await registry.add_node(served.address, "raw", name="loop")
    await registry.set_node_model("loop", "m")
    error = await refused(start(served.through, method))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason(error) == ("PROXY_LOOP", False)
    assert not served.node.seen
    assert list(served.router.table.replicas("m"))  # no evidence against a replica


async def test_a_request_may_pass_one_router_after_the_other(served: Stack, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    async with stack(tmp_path / "second") as outer:
        registry = outer.router.registry
        await registry.remove_node("raw-1")
        await registry.add_node(served.address, "raw", name="inner")
        await registry.set_node_model("inner", "m")
        served.node.script = Script(replies=(b"hi",))
        call = outer.through.unary_unary(UNARY)
        assert await call(b"", metadata=KEY) == b"hi"
        (seen,) = served.node.seen
        hops = [value for key, value in seen.metadata if key == "grpcerrors-hop"]
        assert len(set(hops)) == 2
