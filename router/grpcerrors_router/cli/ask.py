"""Checks what listens at an address, for nodes that do not register."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from grpcerrors_protocol import fleet_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

PATIENCE = 2.0
"""Seconds to wait for a connection, and for an answer."""

_OPERATOR = fleet_pb2.DESCRIPTOR.services_by_name["Operator"].full_name


def answering(addresses: Iterable[str]) -> dict[str, bool]:
    """Return for each address whether a gRPC server accepts a connection there within 2 s.

    Blocks meanwhile. A server accepts a fresh connection even when all its workers are busy.
    """
    with ExitStack() as stack:
        connecting = {
            address: grpc.channel_ready_future(
                stack.enter_context(grpc.insecure_channel(address, options=_OPTIONS))
            )
            for address in dict.fromkeys(addresses)
        }
        deadline = time.monotonic() + PATIENCE
        return {
            address: _is_ready(ready, deadline - time.monotonic())
            for address, ready in connecting.items()
        }


def is_router(address: str) -> bool:
    """Return whether a router's gateway answers at `address`; blocks for up to 2 s."""
    request = health_pb2.HealthCheckRequest(service=_OPERATOR)
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=PATIENCE)
        except grpc.RpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


# A new connection, even if this process has another one to the address.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


def _is_ready(ready: grpc.Future, seconds: float) -> bool:
    try:
        ready.result(timeout=max(0.0, seconds))
    except grpc.FutureTimeoutError:
        ready.cancel()
        return False
    return True
