"""The Operator service: operators look at a fleet and change it through a running router."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from grpcerrors_protocol import fleet_pb2, fleet_pb2_grpc
from grpcerrors_router.entities import Node
from grpcerrors_router.errors import NotReloadable
from grpcerrors_router.gateway.ending import errors_of
from grpcerrors_router.state.fleet import LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from grpcerrors_router.config.reload import Reloaded
    from grpcerrors_router.router import SmartRouter

    Reload = Callable[[], Awaitable[Reloaded]]

PROGRESS_INTERVAL = 1.0
"""Seconds between two progress messages of a load."""

MOST_ENTRIES = 10_000
"""Entries of the heal log or of a history in one answer."""


class OperatorService(fleet_pb2_grpc.OperatorServicer):
    """Calls the router, and returns its errors unchanged.

    Args:
        router: the router.
        reload: reads the configuration again; None if it was not read from files.
    """

    def __init__(self, router: SmartRouter, reload: Reload | None = None) -> None:
        self._router = router
        self._reload = reload

    # Looking

    async def GetFleet(  # noqa: N802 - named as its RPC
        self, _request: fleet_pb2.GetFleetRequest, context: Any
    ) -> fleet_pb2.FleetState:
        """Return the state of the fleet."""
        async with errors_of(context):
            return await self._router.state.fleet()

    async def ListHeals(  # noqa: N802 - named as its RPC
        self, request: fleet_pb2.ListHealsRequest, context: Any
    ) -> fleet_pb2.ListHealsReply:
        """Return the heal log."""
        async with errors_of(context):
            return await self._router.state.heals(
                _limit(request.limit), request.model, request.node
            )

    async def GetHistory(  # noqa: N802 - named as its RPC
        self, request: fleet_pb2.GetHistoryRequest, context: Any
    ) -> fleet_pb2.GetHistoryReply:
        """Return what happened to a model."""
        async with errors_of(context):
            return await self._router.state.history(request.model, _limit(request.limit))

    async def ListModels(  # noqa: N802 - named as its RPC
        self, _request: fleet_pb2.ListModelsRequest, context: Any
    ) -> fleet_pb2.ListModelsReply:
        """Return the models."""
        async with errors_of(context):
            return await self._router.state.models()

    # Models

    async def Load(  # noqa: N802 - named as its RPC
        self, request: fleet_pb2.LoadRequest, context: Any
    ) -> AsyncIterator[fleet_pb2.LoadProgress]:
        """Load a model; report every second on which node it is loading."""
        start = time.monotonic()
        model = request.model
        work = asyncio.create_task(self._router.load(model, timeout=context.time_remaining()))
        node = ""
        try:
            while not work.done():
                seconds = time.monotonic() - start
                yield fleet_pb2.LoadProgress(node=self._loading_on(model), seconds=seconds)
                await asyncio.wait({work}, timeout=PROGRESS_INTERVAL)
            async with errors_of(context):
                node = await work
        finally:
            work.cancel()
        seconds = time.monotonic() - start
        yield fleet_pb2.LoadProgress(node=node, seconds=seconds, loaded=True)

    def _loading_on(self, model: str) -> str:
        return next((load.node for load in self._router.table.loads(model)), "")

    async def Unload(  # noqa: N802 - named as its RPC
        self, request: fleet_pb2.UnloadRequest, context: Any
    ) -> fleet_pb2.UnloadReply:
        """Unload a model from one node or from all."""
        nodes: list[str] = []
        async with errors_of(context):
            nodes = await self._router.unload(
                request.model, node=request.node or None, force=request.force
            )
        return fleet_pb2.UnloadReply(nodes=nodes)

    # Nodes

    async def AddNode(  # noqa: N802 - named as its RPC
        self, request: fleet_pb2.AddNodeRequest, context: Any
    ) -> fleet_pb2.AddNodeReply:
        """Add a node that does not register itself."""
        node = Node(
            request.name or request.address,
            request.address,
            request.backend,
            request.slots or 1,
            tls=request.tls,
            token=request.token_file,
        )
        async with errors_of(context):
            answers, why = await self._router.operations.add_node(node)
            return fleet_pb2.AddNodeReply(name=node.name, answers=answers, why=why)

    async def RemoveNode(  # noqa: N802 - named as its RPC
        self, request: fleet_pb2.RemoveNodeRequest, context: Any
    ) -> fleet_pb2.RemoveNodeReply:
        """Remove a node."""
        async with errors_of(context):
            await self._router.operations.remove_node(request.node)
        return fleet_pb2.RemoveNodeReply()

    async def Drain(  # noqa: N802 - named as its RPC
        self, request: fleet_pb2.DrainRequest, context: Any
    ) -> fleet_pb2.DrainReply:
        """Drain a node, or end its drain."""
        async with errors_of(context):
            calls = await self._router.operations.drain(request.node, off=request.off)
            return fleet_pb2.DrainReply(calls=calls)

    # Pauses and configuration

    async def Forgive(  # noqa: N802 - named as its RPC
        self, request: fleet_pb2.ForgiveRequest, context: Any
    ) -> fleet_pb2.ForgiveReply:
        """End quarantines, back-offs and pauses."""
        async with errors_of(context):
            ended = await self._router.operations.forgive(request.model, request.node)
            return fleet_pb2.ForgiveReply(now=self._router.state.now(), ended=ended)

    async def Reload(  # noqa: N802 - named as its RPC
        self, _request: fleet_pb2.ReloadRequest, context: Any
    ) -> fleet_pb2.ReloadReply:
        """Read the configuration again."""
        async with errors_of(context):
            if self._reload is None:
                raise NotReloadable
            done = await self._reload()
            return fleet_pb2.ReloadReply(
                mistakes=done.mistakes,
                added=done.models.added,
                changed=done.models.changed,
                removed=done.models.removed,
                tokens=done.tokens,
            )


def _limit(asked: int) -> int:
    return min(asked, MOST_ENTRIES) if asked > 0 else LIMIT
