"""The gRPC server of a router: proxy, Fleet, Operator, health and reflection on one port."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from grpcerrors_protocol import backend_pb2, fleet_pb2, fleet_pb2_grpc, inference_pb2
from grpcerrors_protocol.limits import connection_limits
from grpcerrors_protocol.pool import pool_of
from grpcerrors_protocol.wellformed import Wellformed
from grpcerrors_router.gateway.authorization import Authorization
from grpcerrors_router.gateway.membership import FleetService
from grpcerrors_router.gateway.memory import give_back
from grpcerrors_router.gateway.operator import OperatorService
from grpcerrors_router.gateway.proxy import SERVICES as PROXIED
from grpcerrors_router.gateway.proxy import Gateway
from grpcerrors_router.nodes.channels import MESSAGE_LIMIT, WINDOW
from grpcerrors_router.tasks import stop

if TYPE_CHECKING:
    from grpcerrors_protocol.tls import ServerTls
    from grpcerrors_router.gateway.headers import Headers
    from grpcerrors_router.gateway.operator import Reload
    from grpcerrors_router.router import SmartRouter
    from grpcerrors_router.security.access import Access

SERVICES = (
    *(service.full_name for service in PROXIED),
    fleet_pb2.DESCRIPTOR.services_by_name["Fleet"].full_name,
    fleet_pb2.DESCRIPTOR.services_by_name["Operator"].full_name,
    health.SERVICE_NAME,
)

REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"

OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    # Trailers that a caller accepts from a node must also pass through the gateway.
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 128 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # By default gRPC answers CANCELLED, without a reason, when 1,000 calls wait to be accepted, or
    # one waits for 30 s. `Settings.max_calls` is the limit instead.
    ("grpc.server.max_pending_requests", 2**31 - 1),
    ("grpc.server.max_pending_requests_hard_limit", 2**31 - 1),
    ("grpc.server_max_unrequested_time_in_server", 3600),
    # The same window as on the connections to nodes.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", WINDOW),
    ("grpc.so_reuseport", 0),  # so that a second server on the port fails
    *connection_limits(),
)


class GatewayServer:
    """Serves a router on one port.

    Args:
        router: the router.
        listen: "host:port"; port 0 for any free port.
        reload: reads the configuration again; None if it was not read from files.
        access: finds the tokens of all calls; None if nobody needs one.
        headers: see Gateway.
        tls: the TLS to serve; None for plain text.
        nodes_over_tls: whether to refuse the heartbeats of nodes that do not serve TLS.
    """

    def __init__(
        self,
        router: SmartRouter,
        listen: str,
        reload: Reload | None = None,
        *,
        access: Access | None = None,
        headers: Headers | None = None,
        tls: ServerTls | None = None,
        nodes_over_tls: bool = False,
    ) -> None:
        refused = functools.partial(router.events.refused, "")
        checks = () if access is None else (Authorization(access, refused),)
        self._server: Any = grpc.aio.server(interceptors=checks, options=OPTIONS)
        self._health = health.aio.HealthServicer()
        self._listen = listen
        self._tasks: list[asyncio.Task[None]] = []
        self._tls = tls
        # Handles each method that no service below registers by name: nearly every call.
        self.gateway = Gateway(router, access=access, headers=headers)
        self._server.add_generic_rpc_handlers((self.gateway,))
        wellformed = Wellformed(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, wellformed)
        self._fleet = FleetService(router, access, over_tls=nodes_over_tls)
        fleet_pb2_grpc.add_FleetServicer_to_server(self._fleet, wellformed)
        operator = OperatorService(router, reload)
        fleet_pb2_grpc.add_OperatorServicer_to_server(operator, wellformed)
        _serve_reflection(wellformed)

    async def start(self) -> str:
        """Bind and serve; return the bound "host:port".

        Raises OSError when the address cannot be bound.
        """
        try:
            port: int = (
                self._server.add_insecure_port(self._listen)
                if self._tls is None
                else self._server.add_secure_port(self._listen, self._tls.credentials())
            )
        except RuntimeError as error:
            raise OSError(
                f"cannot listen on {self._listen}: the port is taken, or this machine "
                "does not have that address; choose another, or port 0 for any free port"
            ) from error
        address = self._fleet.own = f"{self._listen.rpartition(':')[0]}:{port}"
        for service in ("", *SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        self._tasks.append(asyncio.create_task(give_back(self.gateway.admission)))
        return address

    async def stop(self, grace: float) -> None:
        """Report NOT_SERVING, refuse new calls, and let those in flight run for `grace` seconds."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)
        await stop(self._tasks)


def _serve_reflection(server: Any) -> None:
    files = (backend_pb2, inference_pb2, fleet_pb2, health_pb2, reflection_pb2)
    pool = pool_of(*(file.DESCRIPTOR for file in files))
    names = (*SERVICES, reflection.SERVICE_NAME)
    servicer = reflection.aio.ReflectionServicer(names, pool=pool)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    # Clients try v1 first. grpcio has v1alpha only, whose messages are the same.
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    # Registered by name, since the gateway handles all other methods.
    server.add_registered_method_handlers(REFLECTION_V1, {"ServerReflectionInfo": handler})
