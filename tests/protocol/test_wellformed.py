"""Malformed messages to servers of every kind get INVALID_ARGUMENT, and no traceback is logged."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc

from grpcerrors_protocol import fleet_pb2
from grpcerrors_protocol.wellformed import Wellformed, wellformed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import pytest

SHAPES = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
GOOD = fleet_pb2.LoadRequest(model="m").SerializeToString()
BAD = b"\xff\xff"
TEXT = "the request is malformed; send a fleet.v1.LoadRequest"


def sync_one(request: Any, context: Any) -> Any:
    return request


def sync_one_to_many(request: Any, context: Any) -> Iterator[Any]:
    yield request


def sync_many_to_one(requests: Iterator[Any], context: Any) -> Any:
    return list(requests)[-1]


def sync_many(requests: Iterator[Any], context: Any) -> Iterator[Any]:
    yield from requests


async def aio_one(request: Any, context: Any) -> Any:
    return request


async def aio_one_to_many(request: Any, context: Any) -> AsyncIterator[Any]:
    yield request


async def aio_one_writing(request: Any, context: Any) -> None:
    await context.write(request)


async def aio_many_to_one(requests: AsyncIterator[Any], context: Any) -> Any:
    return [request async for request in requests][-1]


async def aio_many(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    async for request in requests:
        yield request


async def aio_many_writing(requests: AsyncIterator[Any], context: Any) -> None:
    async for request in requests:
        await context.write(request)


class Server:
    """Registers one handler of each shape, by name and generically."""

    def __init__(self, server: Any, behaviors: dict[str, Any]) -> None:
        handlers = {
            name: getattr(grpc, f"{name.removesuffix('_writing')}_rpc_method_handler")(
                behavior,
                fleet_pb2.LoadRequest.FromString,
                fleet_pb2.LoadRequest.SerializeToString,
            )
            for name, behavior in behaviors.items()
        }
        checked = Wellformed(server)
        checked.add_registered_method_handlers("by.Name", handlers)
        generic = grpc.method_handlers_generic_handler("by.Rule", handlers)
        checked.add_generic_rpc_handlers((generic,))
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"


def outcome(channel: Any, shape: str, path: str, *messages: bytes) -> Any:
    """Return the answers, or the error, of a call."""
    call = getattr(channel, shape)(path)
    request = iter(messages) if shape.startswith("stream") else messages[0]
    try:
        answer = call(request, timeout=60)
        return list(answer) if shape.endswith("stream") else [answer]
    except grpc.RpcError as error:
        return error.code(), error.details()


def check(address: str, names: list[str], caplog: pytest.LogCaptureFixture) -> None:
    malformed = (grpc.StatusCode.INVALID_ARGUMENT, TEXT)
    with grpc.insecure_channel(address) as channel:
        for name in names:
            shape = name.removesuffix("_writing")
            for service in ("by.Name", "by.Rule"):
                path = f"/{service}/{name}"
                assert outcome(channel, shape, path, GOOD) == [GOOD]
                assert outcome(channel, shape, path, BAD) == malformed
                if shape.startswith("stream"):
                    assert outcome(channel, shape, path, GOOD, BAD) == malformed
        found = outcome(channel, "unary_unary", "/by.Rule/none", GOOD)
        assert found[0] is grpc.StatusCode.UNIMPLEMENTED
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


def test_a_sync_server(caplog: pytest.LogCaptureFixture) -> None:
    behaviors = (sync_one, sync_one_to_many, sync_many_to_one, sync_many)
    server = grpc.server(ThreadPoolExecutor(2))
    served = Server(server, dict(zip(SHAPES, behaviors, strict=True)))
    server.start()
    check(served.address, SHAPES, caplog)
    server.stop(None).wait()


async def test_an_aio_server(caplog: pytest.LogCaptureFixture) -> None:
    names = [*SHAPES, "unary_stream_writing", "stream_stream_writing"]
    behaviors = (aio_one, aio_one_to_many, aio_many_to_one, aio_many)
    server = grpc.aio.server()
    writing = (aio_one_writing, aio_many_writing)
    served = Server(server, dict(zip(names, (*behaviors, *writing), strict=True)))
    await server.start()
    await asyncio.to_thread(check, served.address, names, caplog)
    await server.stop(None)


def test_a_handler_of_bytes_is_left_alone() -> None:
    handler = grpc.unary_unary_rpc_method_handler(sync_one)
    assert wellformed(handler) is handler
