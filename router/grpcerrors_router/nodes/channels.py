"""The connections to nodes: one channel per address, as long as a node has the address."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from grpcerrors_protocol.backend_pb2_grpc import BackendStub

if TYPE_CHECKING:
    from collections.abc import Collection

WINDOW = 256 * 1024
"""Bytes that a peer may send on one stream before they are consumed."""

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
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

_READY = grpc.ChannelConnectivity.READY
_FAILED = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)


def _open(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=_OPTIONS)


class _Link:
    """A channel, its stub and methods, and how often its connection was lost."""

    def __init__(self, address: str) -> None:
        self.channel = _open(address)
        self.stub = BackendStub(self.channel)
        self.methods: dict[tuple[Any, ...], Any] = {}
        self.losses = 0
        self._ready = False
        self._watch = asyncio.get_running_loop().create_task(self._count_losses())

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


class Channels:
    """Opens a channel on first use, and closes it when no node has its address any more."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}

    def __len__(self) -> int:
        return len(self._links)

    def _link(self, address: str) -> _Link:
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = _Link(address)
        return link

    def stub(self, address: str) -> BackendStub:
        """Return a stub of the backend protocol for an address."""
        return self._link(address).stub

    def multicallable(self, address: str, shape: str, method: tuple[Any, ...]) -> Any:
        """Return the callable of a method at an address.

        Args:
            address: the node's address.
            shape: the RPC shape, as the methods of `grpc.aio.Channel` are named.
            method: path, request serializer and response deserializer.
        """
        link = self._link(address)
        found = link.methods.get((shape, method))
        if found is None:
            found = getattr(link.channel, shape)(*method)
            if len(link.methods) < _KEPT_METHODS:
                link.methods[shape, method] = found
        return found

    def losses(self, address: str) -> int:
        """Return how often the connection to an address was lost since the channel was opened."""
        link = self._links.get(address)
        if link is None:
            return 0
        link.look()
        return link.losses

    @staticmethod
    async def connects(address: str, timeout: float) -> bool:
        """Return whether a process accepts a new connection within `timeout` seconds.

        gRPC's core accepts it, not the program. So a process whose threads are all busy, or whose
        event loop is blocked, still connects; one that is stopped or gone does not.
        """
        channel = _open(address)
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

    async def retain(self, addresses: Collection[str]) -> None:
        """Close the channels to all other addresses."""
        gone = self._links.keys() - set(addresses)
        links = [self._links.pop(address) for address in gone]
        for link in links:
            await link.close()

    async def close(self) -> None:
        """Close all channels."""
        await self.retain(())
