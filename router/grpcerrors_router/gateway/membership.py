"""The Fleet service: nodes register, report what they hold, and leave."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from grpcerrors_protocol import fleet_pb2, fleet_pb2_grpc
from grpcerrors_router.entities import Heartbeat, Held
from grpcerrors_router.errors import PermissionDenied
from grpcerrors_router.gateway.authorization import RefusalLog
from grpcerrors_router.gateway.ending import errors_of
from grpcerrors_router.validation import (
    Invalid,
    check_name,
    check_node_address,
    shown,
    split_address,
)

if TYPE_CHECKING:
    from grpcerrors_router.errors import RouteError
    from grpcerrors_router.router import SmartRouter
    from grpcerrors_router.security.access import Access


class FleetService(fleet_pb2_grpc.FleetServicer):
    """Passes heartbeats to the router; answers invalid ones with INVALID_ARGUMENT.

    Args:
        router: the router.
        access: finds the nodes' tokens; None if they need none.
        over_tls: whether to refuse nodes that do not serve TLS.

    Attributes:
        own: the "host:port" that the gateway serves on; "" before it is known.
    """

    def __init__(
        self, router: SmartRouter, access: Access | None = None, *, over_tls: bool = False
    ) -> None:
        self._router = router
        self._access = access
        self._over_tls = over_tls
        self._refusals = RefusalLog()
        self.own = ""

    async def Heartbeat(  # noqa: N802 - named as its RPC
        self, request: fleet_pb2.HeartbeatRequest, context: Any
    ) -> fleet_pb2.HeartbeatReply:
        """Apply a node's report; return the seconds until its next heartbeat."""
        held = (Held(each.model, each.generation, each.in_flight) for each in request.models)
        beat = Heartbeat(
            node=request.node,
            address=request.address,
            backend=request.backend,
            slots=request.slots,
            boot_id=request.boot_id,
            inventory_version=request.inventory_version,
            models=tuple(held),
            tls=request.tls,
        )
        interval = 0.0
        async with errors_of(context, functools.partial(self._refused, beat.node)):
            beat = replace(beat, registered_by=self._token(context, beat.node))
            check_node_address(beat.address)
            if self._over_tls and not beat.tls:
                raise Invalid(
                    f"node {shown(beat.node)} does not serve TLS, and this router was started with "
                    "--tls-ca; start the node with --tls-cert and --tls-key"
                )
            known = self._router.table.nodes.get(beat.node)
            is_news = known is None or known.info.address != beat.address
            if is_news and await _is_same_server(beat.address, self.own):
                raise Invalid(
                    f"the address {shown(beat.address)} is the router's own; give the node "
                    f"{shown(beat.node)} its own address (grpcerrors-backend --advertise HOST)"
                )
            interval = await self._router.heartbeat(beat)
        return fleet_pb2.HeartbeatReply(interval_seconds=interval)

    def _refused(self, node: str, error: RouteError) -> None:
        known = node if node in self._router.table.nodes else ""
        self._router.events.heartbeat_refused(known, error)

    async def Leave(  # noqa: N802 - named as its RPC
        self, request: fleet_pb2.LeaveRequest, context: Any
    ) -> fleet_pb2.LeaveReply:
        """Remove a node that is stopping."""
        async with errors_of(context):
            token = self._token(context, request.node)
            check_name(request.node, "the node name")
            check_name(request.boot_id, "the boot id")
            await self._router.leave(request.node, request.boot_id, registered_by=token)
        return fleet_pb2.LeaveReply()

    def _token(self, context: Any, node: str) -> str:
        """Return the name of the call's token, "" if none is needed.

        Raises Unauthenticated, or PermissionDenied if the node may not have that name.
        """
        if self._access is None:
            return ""
        token = self._access.identify(context.invocation_metadata())
        if not token.may_be(node):
            error = PermissionDenied(
                token.name, f"register node {shown(node)}", "add the name to its nodes"
            )
            self._refusals.refused(error, "", context.peer())
            raise error
        return token.name


async def _is_same_server(address: str, own: str) -> bool:
    """Return whether `address` leads to the server that listens on `own`."""
    if not own:
        return False
    host, port = split_address(address)
    listening, own_port = split_address(own)
    if port != own_port:
        return False
    hosts, listeners = await _addresses(host), await _addresses(listening)
    if any(ipaddress.ip_address(each).is_unspecified for each in listeners):
        return any(map(_is_local, hosts))
    return not hosts.isdisjoint(listeners)


async def _addresses(host: str) -> set[str]:
    """Return the IP addresses of a host; none when its name cannot be resolved."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {str(each[4][0]).partition("%")[0] for each in found}


def _is_local(address: str) -> bool:
    """Return whether an IP address belongs to this machine: only those can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
