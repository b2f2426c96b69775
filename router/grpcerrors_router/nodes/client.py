"""The router's access to nodes, as one value that a test can replace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grpcerrors_router.nodes.channels import Channels
from grpcerrors_router.nodes.control import ControlPlane, Headers
from grpcerrors_router.security.node_tokens import NodeTokens

if TYPE_CHECKING:
    from grpcerrors_protocol.tls import ClientTls


@dataclass(frozen=True, slots=True)
class NodeClient:
    """The channels that carry requests, the control plane, and the tokens for nodes."""

    channels: Channels
    control: ControlPlane
    tokens: NodeTokens = field(default_factory=NodeTokens)

    @classmethod
    def over_grpc(
        cls,
        tls: ClientTls | None = None,
        headers: Headers = tuple,
        *,
        tokens: NodeTokens | None = None,
    ) -> NodeClient:
        """Return a client that connects to the nodes' addresses over gRPC.

        Args:
            tls: how to connect to nodes that serve TLS. By default, their certificates must be
                signed by an authority that the system trusts.
            headers: see ControlPlane.
            tokens: the tokens that nodes ask for; None for none.
        """
        channels = Channels(tls, tokens)
        return cls(channels, ControlPlane(channels, headers), tokens or NodeTokens())
