"""The connections to nodes: one channel per address, as long as a node has the address."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import grpc
import structlog

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_protocol.tls import ClientTls, hint
from grpcerrors_router.security.node_tokens import bearing
from grpcerrors_router.tasks import stop

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from grpcerrors_router.entities import Node
    from grpcerrors_router.security.node_tokens import Header, NodeTokens

_log = structlog.get_logger("router.nodes")

WINDOW = 256 * 1024
"""Bytes that a peer may send on one stream before they are consumed."""

MESSAGE_LIMIT = 50 * 1024 * 1024
"""Bytes of one message, of callers and of nodes. LocalAI has the same limit."""

_OPTIONS = (
    # gRPC also stops decompressing there.
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", -1),
    # gRPC replaces an error whose trailers exceed its default limit, so the evidence would be lost.
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 128 * 1024),
    # Reconnect soon: the router, not the channel, decides how often a node is tried.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A window that grows with the bandwidth would buffer up to 16 MiB for a stream that is not
    # read. Without it, a stream buffers one window and one message.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", WINDOW),
    # A new channel makes a new connection, which shows whether the process accepts one.
    ("grpc.use_local_subchannel_pool", 1),
    # An idle channel keeps its connection: a loss is a sign that the process may have restarted.
    ("grpc.client_idle_timeout_ms", 2**31 - 1),
)

_KEPT_METHODS = 1024
"""Methods cached per channel, limited since callers of a gateway choose the names."""

_LOOK = 0.1
"""Seconds between two looks at a connection that is being made."""

_PATIENCE = 5.0
"""Seconds to wait for the reason why there is no connection."""

_READY = grpc.ChannelConnectivity.READY
_FAILED = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)


class _Link:
    """A channel, its stub and methods, and how often its connection was lost.

    Attributes:
        calls: calls in flight; counted over TLS only, where channels are replaced.
    """

    def __init__(self, channel: grpc.aio.Channel, *, secure: bool) -> None:
        self.channel = channel
        self.secure = secure
        self.calls = 0
        self.stub = BackendStub(_Counting(self) if secure else channel)
        self.methods: dict[tuple[Any, ...], Any] = {}
        self.losses = 0
        self._ready = False
        self._watch = asyncio.get_running_loop().create_task(self._count_losses())

    def method(self, shape: str, method: tuple[Any, ...]) -> Any:
        """Return the callable of a method, which is kept."""
        found = self.methods.get((shape, method))
        if found is None:
            found = self.make(shape, *method)
            if len(self.methods) < _KEPT_METHODS:
                self.methods[shape, method] = found
        return found

    def make(self, shape: str, *method: Any) -> Any:
        """Return a new callable of a method."""
        made = getattr(self.channel, shape)(*method)
        return self._counting(made) if self.secure else made

    def _counting(self, made: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **options: Any) -> Any:
            call = made(*args, **options)
            self.calls += 1
            call.add_done_callback(self._ended)
            return call

        return count

    def _ended(self, _: Any) -> None:
        self.calls -= 1

    def look(self) -> None:
        """Count a loss that the watching task has not seen yet."""
        ready = self.channel.get_state() is _READY
        self.losses += self._ready and not ready
        self._ready = ready

    async def _count_losses(self) -> None:
        state = self.channel.get_state()
        while state is not grpc.ChannelConnectivity.SHUTDOWN:
            await self.channel.wait_for_state_change(state)
            # The channel has left READY, even if it is READY again by now.
            if state is _READY and self._ready:
                self.losses += 1
            state = self.channel.get_state()
            self._ready = state is _READY

    async def close(self) -> None:
        self._watch.cancel()
        await asyncio.wait({self._watch})
        await self.channel.close()


class _Counting:
    """What a stub needs of a channel; it counts the calls of a link."""

    def __init__(self, link: _Link) -> None:
        self._link = link

    def __getattr__(self, shape: str) -> Any:
        def make(path: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
            return self._link.make(shape, path, request_serializer, response_deserializer)

        return make


class _Bearing:
    """A stub whose methods send a token."""

    def __init__(self, stub: BackendStub, header: Header) -> None:
        self._stub = stub
        self._header = header

    def __getattr__(self, name: str) -> Any:
        return bearing(getattr(self._stub, name), self._header)


class Channels:
    """Opens a channel on first use, and closes it when no node has its address any more.

    When the files of its TLS change, each channel gets a successor, which new calls use as soon as
    it is connected, or the old connection is lost. An old channel is closed when its last call has
    ended.

    Args:
        tls: how to connect to nodes that serve TLS; see NodeClient.
        tokens: the tokens for nodes; None for none.
    """

    def __init__(self, tls: ClientTls | None = None, tokens: NodeTokens | None = None) -> None:
        self._tls = tls
        self._tokens = tokens
        self._version = 0 if tls is None else tls.refresh()
        self._links: dict[str, _Link] = {}
        self._retired: list[tuple[str, _Link]] = []
        self._successions: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._links) + len(self._retired) + len(self._successions)

    def _link(self, node: Node) -> _Link:
        link = self._links.get(node.address)
        if link is None or link.secure is not node.tls:
            new = _Link(self._open(node.address, secure=node.tls), secure=node.tls)
            link = self._replace(node.address, new)
        return link

    def _replace(self, address: str, new: _Link) -> _Link:
        old = self._links.get(address)
        if old is not None:
            old.look()
            new.losses += old.losses
            self._retired.append((address, old))
        self._links[address] = new
        return new

    def _open(self, address: str, *, secure: bool) -> grpc.aio.Channel:
        if not secure:
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        if self._tls is None:
            self._tls = ClientTls()
        return grpc.aio.secure_channel(address, self._tls.credentials(), options=_OPTIONS)

    def stub(self, node: Node) -> BackendStub:
        """Return a stub of the backend protocol for a node."""
        stub = self._link(node).stub
        header = None if self._tokens is None else self._tokens.header(node)
        return stub if header is None else cast("BackendStub", _Bearing(stub, header))

    def multicallable(self, node: Node, shape: str, method: tuple[Any, ...]) -> Any:
        """Return the callable of a method at a node.

        Args:
            node: the node.
            shape: the RPC shape, as the methods of `grpc.aio.Channel` are named.
            method: path, request serializer and response deserializer.
        """
        found = self._link(node).method(shape, method)
        header = None if self._tokens is None else self._tokens.header(node)
        return found if header is None else bearing(found, header)

    def losses(self, node: Node) -> int:
        """Return how often the connection to a node was lost since the first channel to it."""
        link = self._links.get(node.address)
        if link is None:
            return 0
        link.look()
        return link.losses

    async def connects(self, node: Node, timeout: float) -> bool:
        """Return whether a process accepts a new connection within `timeout` seconds.

        gRPC's core accepts it, not the program. So a process whose threads are all busy, or whose
        event loop is blocked, still connects; one that is stopped or gone does not.
        """
        channel = self._open(node.address, secure=node.tls)
        try:
            async with asyncio.timeout(timeout):
                while (state := channel.get_state(try_to_connect=True)) is not _READY:
                    if state in _FAILED:
                        return False
                    await channel.wait_for_state_change(state)
        except TimeoutError:
            return False
        else:
            return True
        finally:
            await channel.close()

    def follow(self) -> None:
        """Let new connections use the files of TLS as they are now."""
        version = 0 if self._tls is None else self._tls.refresh()
        if version == self._version:
            return
        self._version = version
        for address, link in self._links.items():
            if link.secure:
                before = self._successions.get(address)
                if before is not None:
                    before.cancel()
                task = asyncio.get_running_loop().create_task(self._succeed(address, link))
                self._successions[address] = task
                task.add_done_callback(partial(self._succeeded, address))

    async def _succeed(self, address: str, old: _Link) -> None:
        """Replace a channel when its successor is connected, or when it is not connected itself.

        So if the new files do not fit the node yet, its calls use the connection that they have.
        """
        new = _Link(self._open(address, secure=True), secure=True)
        try:
            await _settle(address, old, new)
            if self._links.get(address) is old:
                self._replace(address, new)
        finally:
            if self._links.get(address) is not new:
                await new.close()

    def _succeeded(self, address: str, task: asyncio.Task[None]) -> None:
        if self._successions.get(address) is task:
            del self._successions[address]

    async def retain(self, addresses: Collection[str]) -> None:
        """Close the channels to all other addresses, and those that were replaced and are idle."""
        gone = self._links.keys() - set(addresses)
        links = [self._links.pop(address) for address in gone]
        kept = []
        for address, link in self._retired:
            if link.calls and address in addresses:
                kept.append((address, link))
            else:
                links.append(link)
        self._retired = kept
        for link in links:
            await link.close()

    async def close(self) -> None:
        """Close all channels."""
        await stop(self._successions.values())
        await self.retain(())


async def _settle(address: str, old: _Link, new: _Link) -> None:
    """Wait until a channel's successor is connected, or the channel is not."""
    told = False
    while (state := new.channel.get_state(try_to_connect=True)) is not _READY:
        if old.channel.get_state() is not _READY:
            return
        if state in _FAILED and not told:
            told = True
            _log.warning(
                "the new TLS files do not work with a node; its old connection stays in use",
                address=address,
                why=await _why(new),
            )
        await asyncio.sleep(_LOOK)


async def _why(link: _Link) -> str:
    """Return why a channel over TLS has no connection."""
    try:
        await link.stub.Health(pb.HealthMessage(), timeout=_PATIENCE)
    except grpc.aio.AioRpcError as error:
        said = error.details() or ""
        return hint(said, tls=True) or said
    return ""
