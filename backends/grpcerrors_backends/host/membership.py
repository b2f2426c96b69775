"""Membership of a router's fleet: regular heartbeats that report what this node really holds.

Serving does not depend on the router, which may stop and restart at any time.
"""

from __future__ import annotations

import hashlib
import random
import re
import socket
import threading
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc
import structlog

from grpcerrors_protocol import fleet_pb2
from grpcerrors_protocol.fleet_pb2_grpc import FleetStub
from grpcerrors_protocol.tls import hint

if TYPE_CHECKING:
    from grpcerrors_backends.host.slots import Slots
    from grpcerrors_protocol.tls import ClientTls
    from grpcerrors_protocol.token_file import TokenFile

PATIENCE = 5.0  # timeout of a heartbeat, in seconds
FIRST_RETRY, LAST_RETRY = 0.2, 3.0  # seconds between attempts after a failed heartbeat
LONGEST_INTERVAL = 3600.0  # seconds; a router cannot ask for a longer one

# What can be sent as x-model-id. A router refuses a heartbeat with any other name in it.
_ROUTABLE = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")

_OPTIONS = (
    # By default, a channel waits up to two minutes between attempts to connect.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
)
_WILDCARDS: Final = ("", "*", "0.0.0.0", "::", "0:0:0:0:0:0:0:0")  # noqa: S104 - refused here
_AWAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
log = structlog.get_logger()


class AddressError(Exception):
    """No router can reach this node at its address. The text says which option to give."""


def advertised(address: str, advertise: str | None) -> str:
    """Return the "host:port" at which a router reaches a node that listens on *address*.

    *advertise* replaces the host of *address*. Raises AddressError for a Unix socket or a wildcard
    address, which a router cannot use.
    """
    if address.startswith("unix:"):
        raise AddressError(
            f"--listen {address}: a router reaches its nodes over TCP; give --listen HOST:PORT"
        )
    host, _, port = address.rpartition(":")
    reached = advertise or host
    if reached.strip("[]") in _WILDCARDS:
        option = "--advertise" if advertise else "--listen"
        raise AddressError(
            f"{option} {reached}: no router can reach a node there; "
            "give --advertise HOST, the name or address of this machine"
        )
    if ":" in reached and not reached.startswith("["):
        reached = f"[{reached}]"
    return f"{reached}:{port}"


def default_name(backend: str, address: str) -> str:
    """Return a name such as "echo-3fa9c1", which depends on backend, machine and address only."""
    place = f"{socket.gethostname()} {uuid.getnode()} {address}"
    return f"{backend}-{hashlib.sha256(place.encode()).hexdigest()[:6]}"


@dataclass(frozen=True)
class Node:
    """How a node introduces itself to the router."""

    name: str
    address: str
    backend: str
    boot_id: str
    tls: bool = False


class Member:
    """Sends heartbeats of *node* to the router at *router* from a background thread.

    Set *changed* when the inventory of *slots* changes: the next heartbeat is then sent at once.
    With *tls*, the router is reached over TLS; with *token*, it gets the token in that file.
    """

    def __init__(
        self,
        router: str,
        node: Node,
        slots: Slots[Any, Any],
        changed: threading.Event,
        tls: ClientTls | None = None,
        token: TokenFile | None = None,
    ) -> None:
        self._router = router
        self._token = token
        self._node = node
        self._slots = slots
        self._changed = changed
        self._stopping = False
        self._hidden: list[str] = []  # models that no router can route to
        self._problem: str | None = ""  # last problem logged; None while the node is a member
        self._tls = tls
        self._tls_version = 0
        self._connect()
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)

    def start(self) -> None:
        """Join, and send heartbeats until `leave`."""
        self._thread.start()

    def leave(self) -> None:
        """Tell the router that this node stops, and end the thread. Blocks up to two timeouts."""
        self._stopping = True
        self._changed.set()
        self._thread.join(PATIENCE)
        request = fleet_pb2.LeaveRequest(node=self._node.name, boot_id=self._node.boot_id)
        try:
            self._stub.Leave(request, timeout=PATIENCE, metadata=self._metadata())
        except grpc.RpcError as error:
            log.warning(
                "cannot tell the router that this node stops", router=self._router, why=_text(error)
            )
        self._channel.close()

    def _run(self) -> None:
        retry = FIRST_RETRY
        while not self._stopping:
            self._changed.clear()
            try:
                pause = self._heartbeat()
            except Exception as error:  # noqa: BLE001 - membership must outlive any one heartbeat
                self._failed(error)
                pause = retry * random.uniform(0.5, 1)  # noqa: S311 - jitter needs no secure random numbers
                retry = min(2 * retry, LAST_RETRY)
            else:
                self._succeeded()
                retry = FIRST_RETRY
            self._changed.wait(pause)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return () if self._token is None else (self._token.header,)

    def _connect(self) -> None:
        """Open a channel to the router, with the files of TLS as they are now."""
        if self._tls is None:
            self._channel = grpc.insecure_channel(self._router, options=_OPTIONS)
        else:
            self._tls_version = self._tls.refresh()
            self._channel = grpc.secure_channel(
                self._router, self._tls.credentials(), options=_OPTIONS
            )
        self._stub = FleetStub(self._channel)

    def _reconnect(self) -> None:
        """Open another channel if the files of TLS have changed."""
        if self._tls is not None and self._tls.refresh() != self._tls_version:
            old = self._channel
            self._connect()
            old.close()

    def _succeeded(self) -> None:
        if self._problem is not None:
            log.info("joined", router=self._router, node=self._node.name)
        self._problem = None

    def _failed(self, error: Exception) -> None:
        """Log a problem once, when it begins, not at every failed heartbeat."""
        detail: dict[str, Any]
        if not isinstance(error, grpc.RpcError):
            problem, detail = "heartbeat failed", {"exc_info": error}
        elif error.code() in _AWAY:
            said = _text(error)
            why = hint(error.details() or "", tls=self._tls is not None) or said
            problem, detail = "cannot reach the router", {"why": why}
        else:
            # For example because another live process has this name.
            problem, detail = "the router refused this node", {"why": _text(error)}
        if problem != self._problem:
            log.warning(problem, router=self._router, node=self._node.name, **detail)
        self._problem = problem

    def _heartbeat(self) -> float:
        """Send one heartbeat. Return the seconds until the next one."""
        self._reconnect()
        version, models = self._slots.inventory()
        self._hide([model for model, *_ in models if not _ROUTABLE.fullmatch(model)])
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
                if model not in self._hidden
            ],
            tls=self._node.tls,
        )
        reply = self._stub.Heartbeat(request, timeout=PATIENCE, metadata=self._metadata())
        # The order of the arguments turns NaN into the longest interval.
        return max(FIRST_RETRY, min(LONGEST_INTERVAL, float(reply.interval_seconds)))

    def _hide(self, models: list[str]) -> None:
        if models != self._hidden and models:
            log.warning(
                "the router is not told of models that no header can name; load them with an"
                " x-model-id of up to 255 printable ASCII characters",
                models=[model[:100] for model in models],
            )
        self._hidden = models


def _text(error: Any) -> str:
    return f"{error.code().name}: {error.details()}"
