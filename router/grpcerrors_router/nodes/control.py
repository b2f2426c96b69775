"""The control plane: the router's own calls to nodes, in the backend protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.metadata import BOOT_ID, GENERATION, INVENTORY_VERSION, MODEL_ID
from grpcerrors_router.validation import NAME_LIMIT, NUMBER_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grpcerrors_router.entities import ModelSpec, Replica
    from grpcerrors_router.nodes.channels import Channels


@dataclass(frozen=True, slots=True)
class Answer:
    """A node's answer to LoadModel or Free.

    Attributes:
        ok: whether the node did it.
        message: the node's reason if it did not.
        boot_id: the process that answered; "" when unknown.
        inventory: the node's inventory counter; 0 when unknown.
    """

    ok: bool
    message: str = ""
    boot_id: str = ""
    inventory: int = 0


class ControlPlane:
    """Calls Health, Status, LoadModel and Free of nodes.

    Timeouts are seconds. Every method raises `grpc.aio.AioRpcError` when the call fails.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def health(self, address: str, timeout: float) -> None:
        """Wait for the answer to Health."""
        await self._channels.stub(address).Health(pb.HealthMessage(), timeout=timeout)

    async def has_model(self, address: str, model: str, timeout: float) -> bool:
        """Return whether the node reports READY or BUSY for the model."""
        reply = await self._channels.stub(address).Status(
            pb.HealthMessage(), timeout=timeout, metadata=[(MODEL_ID, model)]
        )
        return reply.state in (pb.StatusResponse.READY, pb.StatusResponse.BUSY)

    async def load(self, address: str, spec: ModelSpec, generation: int, timeout: float) -> Answer:
        """Load a model as that generation."""
        options = pb.ModelOptions(**{**spec.options, "Model": spec.identity})
        metadata = [(MODEL_ID, spec.name), (GENERATION, str(generation))]
        call = self._channels.stub(address).LoadModel(options, timeout=timeout, metadata=metadata)
        return _answer(await call, await call.trailing_metadata())

    async def free(self, address: str, row: Replica, timeout: float) -> Answer:
        """Unload a model; a node that knows generations unloads no other load of it."""
        metadata = [(MODEL_ID, row.model)]
        if row.held:
            metadata.append((GENERATION, str(row.held)))
        call = self._channels.stub(address).Free(
            pb.HealthMessage(), timeout=timeout, metadata=metadata
        )
        return _answer(await call, await call.trailing_metadata())


def _answer(result: pb.Result, trailers: Iterable[tuple[str, str | bytes]] | None) -> Answer:
    texts = {key: value for key, value in trailers or () if isinstance(value, str)}
    version = texts.get(INVENTORY_VERSION, "")
    # Ignore what the database cannot store.
    inventory = int(version) if version.isdecimal() and len(version) < len(str(NUMBER_LIMIT)) else 0
    return Answer(result.success, result.message, texts.get(BOOT_ID, "")[:NAME_LIMIT], inventory)
