"""The connections to nodes: one channel per address, for as long as a node has the address."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from grpcerrors_protocol.backend_pb2_grpc import BackendStub

if TYPE_CHECKING:
    from collections.abc import Collection

WINDOW = 256 * 1024
"""Bytes that a peer may send on one stream before they are read."""

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Trailers that are too long for gRPC's default turn into another error, and the signal is lost.
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 128 * 1024),
    # A node that was down is tried again soon: the router decides whom to ask, not the channel.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A window that grows with the bandwidth lets a node send up to 16 MiB a stream that nobody
    # reads. This way a stream holds one window and one message.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", WINDOW),
    # A new channel makes a new connection, so that it says something about the process.
    ("grpc.use_local_subchannel_pool", 1),
    # An idle channel keeps its connection: a lost one means that the process may be another.
    ("grpc.client_idle_timeout_ms", 2**31 - 1),
)

_KEPT_METHODS = 1024
"""Per channel. Callers of a gateway choose method names, and must not fill the memory."""

_READY = grpc.ChannelConnectivity.READY
_FAILED = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)


def _open(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=_OPTIONS)


class _Link:
    """A channel, what was made of it, and how often its connection was lost."""

    def __init__(self, address: str) -> None:
        self.channel = _open(address)
        self.stub = BackendStub(self.channel)
        self.methods: dict[tuple[Any, ...], Any] = {}
        self.losses = 0
        self._ready = False
        self._watch = asyncio.get_running_loop().create_task(self._count_losses())

    def look(self) -> None:
        """Count a loss that the watch has not seen yet."""
        ready = self.channel.get_state() is _READY
        self.losses += self._ready and not ready
        self._ready = ready

    async def _count_losses(self) -> None:
        state = self.channel.get_state()
        while state is not grpc.ChannelConnectivity.SHUTDOWN:
            await self.channel.wait_for_state_change(state)
            # The connection may be back already; that it changed from READY is enough.
            if state is _READY and self._ready:
                self.losses += 1
            state = self.channel.get_state()
            self._ready = state is _READY

    async def close(self) -> None:
        self._watch.cancel()
        await asyncio.wait({self._watch})
        await self.channel.close()


class Channels:
    """Opens a channel when it is first needed, and closes it when no node has its address."""

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
        """Return the stub of the backend protocol for an address."""
        return self._link(address).stub

    def multicallable(self, address: str, shape: str, method: tuple[Any, ...]) -> Any:
        """Return the method at an address that stands behind a stub's method.

        Args:
            address: of the node.
            shape: of the RPC, as `grpc.aio.Channel` names it.
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
        """Return how often the connection to an address was lost since its channel was opened."""
        link = self._links.get(address)
        if link is None:
            return 0
        link.look()
        return link.losses

    @staticmethod
    async def connects(address: str, timeout: float) -> bool:
        """Return whether a process accepts a new connection within `timeout` seconds.

        The core of gRPC answers, not the program on it, so that a process whose threads are all
        busy, or whose loop is blocked, connects. One that is stopped or gone does not.
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
