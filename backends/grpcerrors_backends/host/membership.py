"""Membership of a router's fleet: tell it, again and again, what this node really holds.

The router may come, go and restart as it likes: serving does not depend on it.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from grpcerrors_protocol import fleet_pb2
from grpcerrors_protocol.fleet_pb2_grpc import FleetStub

if TYPE_CHECKING:
    from grpcerrors_backends.host.slots import Slots

PATIENCE = 5.0  # seconds for one heartbeat
FIRST_RETRY, LAST_RETRY = 0.2, 5.0
log = structlog.get_logger()


@dataclass(frozen=True)
class Node:
    """Who a node says it is."""

    name: str
    address: str
    backend: str
    boot_id: str


class Member:
    """Sends the heartbeats of *node* to the router at *router* from a thread of its own.

    *changed*, set by whoever changes the inventory of *slots*, brings the next heartbeat forward.
    """

    def __init__(
        self, router: str, node: Node, slots: Slots[Any, Any], changed: threading.Event
    ) -> None:
        self._router = router
        self._node = node
        self._slots = slots
        self._changed = changed
        self._stopping = False
        self._channel = grpc.insecure_channel(router)
        self._stub = FleetStub(self._channel)
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)

    def start(self) -> None:
        """Join, and go on telling."""
        self._thread.start()

    def leave(self) -> None:
        """Tell the router that this node stops, if it can hear it, and end."""
        self._stopping = True
        self._changed.set()
        self._thread.join(PATIENCE)
        request = fleet_pb2.LeaveRequest(node=self._node.name, boot_id=self._node.boot_id)
        try:
            self._stub.Leave(request, timeout=PATIENCE)
        except grpc.RpcError as error:
            log.warning("could not tell the router", router=self._router, why=_say(error))
        self._channel.close()

    def _run(self) -> None:
        retry = FIRST_RETRY
        reached: bool | None = None
        while not self._stopping:
            self._changed.clear()
            try:
                pause = self._heartbeat()
                if not reached:
                    log.info("joined", router=self._router, node=self._node.name)
                reached, retry = True, FIRST_RETRY
            except grpc.RpcError as error:
                if reached is not False:
                    log.warning("router out of reach", router=self._router, why=_say(error))
                reached = False
                pause = retry * random.uniform(0.5, 1.5)  # noqa: S311 - a jitter is no secret
                retry = min(2 * retry, LAST_RETRY)
            self._changed.wait(pause)

    def _heartbeat(self) -> float:
        version, models = self._slots.inventory()
        request = fleet_pb2.HeartbeatRequest(
            node=self._node.name,
            address=self._node.address,
            backend=self._node.backend,
            slots=self._slots.capacity,
            boot_id=self._node.boot_id,
            inventory_version=version,
            models=[
                fleet_pb2.HeldModel(model=model, generation=generation, in_flight=in_flight)
                for model, generation, in_flight in models
            ],
        )
        reply = self._stub.Heartbeat(request, timeout=PATIENCE)
        return max(float(reply.interval_seconds), FIRST_RETRY)


def _say(error: Any) -> str:
    return f"{error.code().name}: {error.details()}"
