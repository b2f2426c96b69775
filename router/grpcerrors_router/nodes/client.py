"""The router's access to nodes, as one value that a test can replace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpcerrors_router.nodes.channels import Channels
from grpcerrors_router.nodes.control import ControlPlane, Headers

if TYPE_CHECKING:
    from grpcerrors_protocol.tls import ClientTls


@dataclass(frozen=True, slots=True)
class NodeClient:
    """The channels that carry requests, and the control plane of the backend protocol."""

    channels: Channels
    control: ControlPlane

    @classmethod
    def over_grpc(cls, tls: ClientTls | None = None, headers: Headers = tuple) -> NodeClient:
        """Return a client that connects to the nodes' addresses over gRPC.

        Args:
            tls: how to connect to nodes that serve TLS. By default, their certificates must be
                signed by an authority that the system trusts.
            headers: see ControlPlane.
        """
        channels = Channels(tls)
        return cls(channels, ControlPlane(channels, headers))
