"""Asks what listens at an address, for nodes that register with nobody."""

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
"""Seconds for a connection, and for an answer."""

_OPERATOR = fleet_pb2.DESCRIPTOR.services_by_name["Operator"].full_name


def answering(addresses: Iterable[str]) -> dict[str, bool]:
    """Return for each address whether a gRPC server answers there; blocks for 2 s at most.

    A fresh connection becomes ready even where every worker of the server is busy.
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
    """Whether a gateway of grpcerrors-router answers at `address`; blocks for 2 s at most."""
    request = health_pb2.HealthCheckRequest(service=_OPERATOR)
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=PATIENCE)
        except grpc.RpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


# A connection of its own, whatever else this process has open to the address.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


def _is_ready(ready: grpc.Future, seconds: float) -> bool:
    try:
        ready.result(timeout=max(0.0, seconds))
    except grpc.FutureTimeoutError:
        ready.cancel()
        return False
    return True
