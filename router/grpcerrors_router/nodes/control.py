"""A router's own calls to nodes: channels, and the control plane of the backend protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_protocol.metadata import BOOT_ID, GENERATION, INVENTORY_VERSION, MODEL_ID

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grpcerrors_router.entities import ModelSpec, Replica

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Trailers that are too long for gRPC's default turn into another error, and the signal is lost.
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 128 * 1024),
    # A node that was down is tried again soon: the router decides whom to ask, not the channel.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
)

_KEPT_METHODS = 4096


class Channels:
    """One channel per address, opened when first needed."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._methods: dict[tuple[Any, ...], Any] = {}

    def get(self, address: str) -> grpc.aio.Channel:
        """The channel to an address."""
        channel = self._channels.get(address)
        if channel is None:
            channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
            self._channels[address] = channel
        return channel

    def multicallable(self, address: str, kind: str, method: tuple[Any, ...]) -> Any:
        """The real method behind a stub's: `kind` names the shape, `method` what the stub gave."""
        key = (address, kind, method)
        found = self._methods.get(key)
        if found is None:
            found = getattr(self.get(address), kind)(*method)
            # Callers of a gateway choose method names: do not let them fill the memory.
            if len(self._methods) < _KEPT_METHODS:
                self._methods[key] = found
        return found

    async def close(self) -> None:
        """Close them all."""
        self._methods.clear()
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node said to LoadModel or Free. `ok` False with the node's own `message`."""

    ok: bool
    message: str = ""
    boot_id: str = ""
    inventory: int = 0


class ControlPlane:
    """Health, Status, LoadModel and Free of any node.

    Errors of the transport come out as they are: `grpc.aio.AioRpcError`.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._stubs: dict[grpc.aio.Channel, BackendStub] = {}

    def _stub(self, address: str) -> BackendStub:
        channel = self._channels.get(address)
        stub = self._stubs.get(channel)
        if stub is None:
            stub = self._stubs[channel] = BackendStub(channel)
        return stub

    async def health(self, address: str, timeout: float) -> None:
        """Return when the process answers."""
        await self._stub(address).Health(pb.HealthMessage(), timeout=timeout)

    async def has_model(self, address: str, model: str, timeout: float) -> bool:
        """Whether the node says that it has the model ready, or is at work with it."""
        reply = await self._stub(address).Status(
            pb.HealthMessage(), timeout=timeout, metadata=[(MODEL_ID, model)]
        )
        return reply.state in (pb.StatusResponse.READY, pb.StatusResponse.BUSY)

    async def load(self, address: str, spec: ModelSpec, generation: int, timeout: float) -> Answer:
        """Load a model."""
        options = pb.ModelOptions(**{**spec.options, "Model": spec.identity})
        metadata = [(MODEL_ID, spec.name), (GENERATION, str(generation))]
        call = self._stub(address).LoadModel(options, timeout=timeout, metadata=metadata)
        return _answer(await call, await call.trailing_metadata())

    async def free(self, address: str, row: Replica, timeout: float) -> Answer:
        """Unload that load of the model, and no other where the node can tell them apart."""
        metadata = [(MODEL_ID, row.model)]
        if row.held:
            metadata.append((GENERATION, str(row.held)))
        call = self._stub(address).Free(pb.HealthMessage(), timeout=timeout, metadata=metadata)
        return _answer(await call, await call.trailing_metadata())


def _answer(result: pb.Result, trailers: Iterable[tuple[str, str | bytes]] | None) -> Answer:
    told = {key: value for key, value in trailers or () if isinstance(value, str)}
    version = told.get(INVENTORY_VERSION, "")
    inventory = int(version) if version.isdecimal() else 0
    return Answer(result.success, result.message, told.get(BOOT_ID, ""), inventory)
