"""The Fleet service: nodes register, tell what they really hold, and leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from grpcerrors_protocol import fleet_pb2, fleet_pb2_grpc
from grpcerrors_router.entities import Heartbeat, Held
from grpcerrors_router.errors import RouteError

if TYPE_CHECKING:
    from grpcerrors_router.router import SmartRouter


class FleetService(fleet_pb2_grpc.FleetServicer):
    """Answers INVALID_ARGUMENT to a heartbeat that makes no sense, with what to mend in it."""

    def __init__(self, router: SmartRouter) -> None:
        self._router = router

    async def Heartbeat(  # noqa: N802 - named as its RPC
        self, request: fleet_pb2.HeartbeatRequest, context: Any
    ) -> fleet_pb2.HeartbeatReply:
        """Take over what a node says of itself; tell it when to speak again."""
        held = (Held(each.model, each.generation, each.in_flight) for each in request.models)
        beat = Heartbeat(
            node=request.node,
            address=request.address,
            backend=request.backend,
            slots=request.slots,
            boot_id=request.boot_id,
            inventory_version=request.inventory_version,
            models=tuple(held),
        )
        try:
            interval = await self._router.heartbeat(beat)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except RouteError as error:
            await abort(context, error)
        return fleet_pb2.HeartbeatReply(interval_seconds=interval)

    async def Leave(  # noqa: N802 - named as its RPC
        self, request: fleet_pb2.LeaveRequest, context: Any
    ) -> fleet_pb2.LeaveReply:
        """Forget a node that stops."""
        try:
            await self._router.leave(request.node, request.boot_id)
        except RouteError as error:
            await abort(context, error)
        return fleet_pb2.LeaveReply()


async def abort(context: Any, error: grpc.aio.AioRpcError) -> None:
    """End the call of `context` with `error`, trailers and all."""
    await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata()))
