"""The rules for names, addresses, headers and heartbeats.

Heartbeats, `add-node`, models.toml and the options of the command line share them. Each check
raises Invalid, a ValueError that says what to fix; it quotes and shortens the value.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from grpcerrors_protocol.metadata import BOOT_ID, GENERATION, HOP, INVENTORY_VERSION, MODEL_ID

if TYPE_CHECKING:
    from grpcerrors_router.entities import Heartbeat

NAME_LIMIT = 255
"""Characters in the name of a node, a model or a backend type, and in a boot id."""

MODELS_LIMIT = 1000
"""Models that one node may hold; slots that it may offer."""

NUMBER_LIMIT = 2**63 - 1
"""The largest integer that the database stores."""

_PORT_LIMIT = 65535
_SHOWN = 60
_HEADER = re.compile(r"[a-z0-9_.-]+")
_OWN_HEADERS = frozenset({MODEL_ID, HOP, GENERATION, BOOT_ID, INVENTORY_VERSION, "user-agent"})
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?\.?")


class Invalid(ValueError):
    """A value breaks a rule; the text says what to fix."""


def shown(value: object) -> str:
    """Return a value quoted, escaped and shortened, for an error or a log line."""
    text = str(value)
    return ascii(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!a}..."


def split_address(address: str, what: str = "the address", example: str = "127.0.0.1:50051") -> (
    tuple[str, int]
):  # fmt: skip
    """Return the host and the port of "HOST:PORT" or "[IPV6]:PORT".

    Port 0 and wildcard hosts are allowed.

    Args:
        address: the address.
        what: what the error calls it.
        example: a valid address, for the error.

    Raises:
        Invalid: it is not an address.
    """
    host, _, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    number = int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else -1  # noqa: PLR2004
    if not _is_host(bare, bracketed=bare != host) or not 0 <= number <= _PORT_LIMIT:
        raise Invalid(
            f"{what} must be HOST:PORT, such as {example}, without a scheme; not {shown(address)}"
        )
    return bare, number


def _is_host(host: str, *, bracketed: bool) -> bool:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return not bracketed and _HOST.fullmatch(host) is not None
    return bracketed is (version == 6)  # noqa: PLR2004


def check_node_address(address: str) -> None:
    """Check that a router can connect to a node at `address`."""
    host, port = split_address(address)
    if port == 0:
        raise Invalid(f"the address {shown(address)} must name the port that the node listens on")
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return
    if number.is_unspecified:
        raise Invalid(
            f"the address {shown(address)} is a wildcard, which no router can connect to; give the "
            "node the address that routers reach it at (grpcerrors-backend --advertise HOST)"
        )
    if number.is_multicast or (number.version == 4 and number.is_link_local):  # noqa: PLR2004
        raise Invalid(f"the address {shown(address)} cannot be that of a server")


def is_name(value: str) -> bool:
    """Return whether `value` can be the name of a node or a backend type, or a boot id."""
    return 0 < len(value) <= NAME_LIMIT and value.isprintable() and value.strip() == value


def check_name(value: str, what: str) -> None:
    """Check the name of a node or a backend type, or a boot id. `what` names it in the error."""
    if not value:
        raise Invalid(f"{what} must not be empty")
    if len(value) > NAME_LIMIT:
        raise Invalid(f"{what} has {len(value)} characters; at most {NAME_LIMIT} are allowed")
    if not is_name(value):
        raise Invalid(f"{what} {shown(value)} must be printable text without spaces around it")


def check_model_name(name: str) -> None:
    """Check that a model name can be sent as `x-model-id`."""
    check_name(name, "the model name")
    if not name.isascii():
        raise Invalid(
            f"the model name {shown(name)} cannot be sent as x-model-id; use printable ASCII"
        )


def check_node(name: str, address: str, backend: str, slots: int) -> None:
    """Check what a node is registered with."""
    check_name(name, "the node name")
    check_node_address(address)
    check_name(backend, f"the backend type of node {shown(name)}")
    if not 1 <= slots <= MODELS_LIMIT:
        raise Invalid(f"node {shown(name)} must offer 1 to {MODELS_LIMIT} slots, not {slots}")


def check_heartbeat(beat: Heartbeat) -> None:
    """Check a heartbeat: names, address, counts and the models that the node holds."""
    check_node(beat.node, beat.address, beat.backend, beat.slots)
    node = shown(beat.node)
    check_name(beat.boot_id, f"the boot id of node {node}, new at every start of the process,")
    if len(beat.models) > MODELS_LIMIT:
        raise Invalid(
            f"node {node} lists {len(beat.models)} models; at most {MODELS_LIMIT} are allowed"
        )
    names = set()
    for held in beat.models:
        check_model_name(held.model)
        names.add(held.model)
        _check_number(held.generation, f"the generation of {shown(held.model)} on node {node}")
        _check_number(held.in_flight, f"the calls in flight on node {node}")
    if len(names) != len(beat.models):
        raise Invalid(f"node {node} lists a model twice")
    _check_number(beat.inventory_version, f"the inventory version of node {node}")


def _check_number(value: int, what: str) -> None:
    if not 0 <= value <= NUMBER_LIMIT:
        raise Invalid(f"{what} must be at most 2^63-1")


def forwardable(name: str) -> str:
    """Return the name of a header that may be forwarded to nodes, in lower case."""
    lowered = name.lower()
    if not _HEADER.fullmatch(lowered) or lowered.startswith("grpc-") or lowered == "te":
        raise Invalid(f"--forward-header {shown(name)}: gRPC cannot carry a header of this name")
    if lowered in _OWN_HEADERS:
        raise Invalid(f"--forward-header {shown(name)}: the router sets this header itself")
    return lowered
