"""A scripted node on a real socket, with a gateway in front of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_router import ModelSpec, NodeRegistry, SmartRouter
from grpcerrors_router.gateway.server import OPTIONS, GatewayServer
from grpcerrors_router.metrics import Metrics
from tests.router.conftest import HANG, QUICK

if TYPE_CHECKING:
    from pathlib import Path

    from grpcerrors_router import Settings
    from grpcerrors_router.calls.retry import OnStale
    from grpcerrors_router.tracing import Tracing

SERVICE = "/backend.Backend/"
LOCAL = (*OPTIONS, ("grpc.use_local_subchannel_pool", 1))

Pairs = tuple[tuple[str, str | bytes], ...]
Behaviour = Callable[[AsyncIterator[bytes], Any], Awaitable[None]]


@dataclass
class Script:
    """What a node does with a call after it has read all requests."""

    initial: Pairs = ()
    replies: tuple[bytes, ...] = (b"",)
    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    trailing: Pairs = ()


@dataclass
class Seen:
    """What a node saw of a call."""

    method: str
    metadata: Pairs
    deadline: float | None
    requests: list[bytes] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: bool = False


class RawNode(grpc.GenericRpcHandler):  # type: ignore[misc,unused-ignore]  # grpc ships no types
    """A node that holds any model. `behave`, if set, handles all other RPCs instead of `script`."""

    def __init__(self) -> None:
        self.script = Script()
        self.behave: Behaviour | None = None
        self.loads: list[str] = []
        self.load_metadata: list[Pairs] = []
        self.load_gate: asyncio.Event | None = None
        self.load_error = ""
        self.seen: list[Seen] = []
        self.server: Any = None
        self.address = ""

    async def start(self) -> None:
        self.server = grpc.aio.server(options=OPTIONS)
        self.server.add_generic_rpc_handlers((self,))
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        await self.server.start()

    def service(self, handler_call_details: Any) -> Any:
        method: str = handler_call_details.method
        control = {
            f"{SERVICE}Health": self._health,
            f"{SERVICE}LoadModel": self._load,
            f"{SERVICE}Free": self._free,
            f"{SERVICE}Status": self._status,
        }.get(method)
        if control is not None:
            return grpc.unary_unary_rpc_method_handler(control)

        async def play(_requests: object, context: Any) -> None:
            seen = Seen(method, tuple(context.invocation_metadata()), context.time_remaining())
            self.seen.append(seen)
            try:
                await self._play(seen, context)
            except asyncio.CancelledError:
                seen.cancelled = True
                raise
            finally:
                seen.ended.set()

        return grpc.stream_stream_rpc_method_handler(play)

    async def _play(self, seen: Seen, context: Any) -> None:
        async def requests() -> AsyncIterator[bytes]:
            while (message := await context.read()) is not grpc.aio.EOF:
                seen.requests.append(message)
                yield message

        if self.behave is not None:
            await self.behave(requests(), context)
            return
        async for _ in requests():
            pass
        script = self.script
        if script.initial:
            await context.send_initial_metadata(script.initial)
        for reply in script.replies:
            await context.write(reply)
        if script.code is not grpc.StatusCode.OK:
            await context.abort(script.code, script.details, script.trailing)
        context.set_trailing_metadata(script.trailing)

    async def _health(self, _request: bytes, _context: Any) -> bytes:
        return pb.Reply(message=b"OK").SerializeToString()

    async def _status(self, _request: bytes, _context: Any) -> bytes:
        return pb.StatusResponse(state=pb.StatusResponse.READY).SerializeToString()

    async def _load(self, request: bytes, context: Any) -> bytes:
        self.load_metadata.append(tuple(context.invocation_metadata()))
        self.loads.append(pb.ModelOptions.FromString(request).Model)
        if self.load_gate is not None:
            await self.load_gate.wait()
        result = pb.Result(success=not self.load_error, message=self.load_error)
        return result.SerializeToString()

    async def _free(self, _request: bytes, _context: Any) -> bytes:
        return pb.Result(success=True).SerializeToString()


@dataclass
class Stack:
    """One node, the gateway, and a channel to each."""

    node: RawNode
    router: SmartRouter
    server: GatewayServer
    metrics: Metrics
    address: str
    direct: Any
    through: Any
    url: str

    async def add_node(self) -> RawNode:
        """Start another node of the same backend. The caller stops its server."""
        node = RawNode()
        await node.start()
        await self.router.registry.add_node(node.address, "raw")
        return node


MODELS = {
    "m": ModelSpec("m", "raw"),
    "alias": ModelSpec("alias", "raw", {"Model": "weights.gguf"}),
    "twin-a": ModelSpec("twin-a", "raw", {"Model": "twin"}),
    "twin-b": ModelSpec("twin-b", "raw", {"Model": "twin"}),
    "orphan": ModelSpec("orphan", "nobody-has-this"),
}


@contextlib.asynccontextmanager
async def stack(
    folder: Path,
    *,
    on_stale: OnStale = "retry",
    slots: int = 4,
    settings: Settings = QUICK,
    tracing: Tracing | None = None,
    **gateway: Any,
) -> AsyncIterator[Stack]:
    """Run node and gateway on a new SQLite registry below `folder`."""
    url = f"sqlite:///{folder / 'router.db'}"
    node = RawNode()
    await node.start()
    metrics = Metrics()
    async with contextlib.AsyncExitStack() as cleanup:
        cleanup.push_async_callback(node.server.stop, 0)
        router = SmartRouter(
            NodeRegistry(url, timeout=HANG),
            MODELS,
            on_stale=on_stale,
            settings=settings,
            events=metrics,
            tracing=tracing,
        )
        await cleanup.enter_async_context(router)
        metrics.follow(router)
        await router.registry.add_node(node.address, "raw", name="raw-1", slots=slots)
        server = GatewayServer(router, "127.0.0.1:0", **gateway)
        address = await server.start()
        cleanup.push_async_callback(server.stop, 0)
        direct = grpc.aio.insecure_channel(node.address, options=LOCAL)
        through = grpc.aio.insecure_channel(address, options=LOCAL)
        cleanup.push_async_callback(direct.close)
        cleanup.push_async_callback(through.close)
        yield Stack(node, router, server, metrics, address, direct, through, url)
