"""Which headers pass through the gateway: what a caller sends on to a node, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpcerrors_protocol.metadata import BOOT_ID, GENERATION, HOP, INVENTORY_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    Pair = tuple[str, str | bytes]

_CONTROL = frozenset({GENERATION, BOOT_ID, INVENTORY_VERSION})
"""Headers between router and nodes. From a caller, they could be taken for the router's."""

_SECRETS = frozenset({"authorization", "cookie", "proxy-authorization"})
"""What a caller shows to this router, or to a proxy before it, is no business of a node."""

_OF_ROUTERS = "grpcerrors-"

_NOT_ONWARD = _CONTROL | _SECRETS | {"user-agent"}
"""gRPC sends its own `user-agent` to the node."""

_NOT_BACK = (
    _CONTROL
    | _SECRETS
    | {
        "alt-svc",
        "proxy-authenticate",
        "set-cookie",
        "strict-transport-security",
        "www-authenticate",
    }
)
"""What would speak for the address that the caller knows, which is the router's: a node must not
set a cookie there, ask for a password, or send the caller to another address."""


class Headers:
    """Filters metadata.

    Towards a node, the following are left out: `authorization`, `cookie`, `proxy-authorization`,
    the headers of the contract and of the router itself. `grpcerrors-hop` stays, which shows loops
    through several routers.

    Args:
        forward: names of headers that are forwarded all the same; see `validation.forwardable`.
    """

    def __init__(self, forward: Iterable[str] = ()) -> None:
        self._forward = frozenset(forward)
        self._dropped = _NOT_ONWARD - self._forward

    def onward(self, metadata: Iterable[Pair]) -> list[Pair]:
        """Return what of a caller's metadata a node gets."""
        dropped = self._dropped
        return [
            pair
            for pair in metadata
            if pair[0] not in dropped
            and (not pair[0].startswith(_OF_ROUTERS) or pair[0] == HOP or pair[0] in self._forward)
        ]

    @staticmethod
    def back(metadata: Iterable[Pair]) -> tuple[Pair, ...]:
        """Return what of a node's metadata the caller gets."""
        return tuple(pair for pair in metadata if pair[0] not in _NOT_BACK)
