"""The router's access to nodes, as one value that a test can replace."""

from __future__ import annotations

from dataclasses import dataclass

from grpcerrors_router.nodes.channels import Channels
from grpcerrors_router.nodes.control import ControlPlane


@dataclass(frozen=True, slots=True)
class NodeClient:
    """The channels that carry requests, and the control plane of the backend protocol."""

    channels: Channels
    control: ControlPlane

    @classmethod
    def over_grpc(cls) -> NodeClient:
        """Return a client that connects to the nodes' addresses over gRPC."""
        channels = Channels()
        return cls(channels, ControlPlane(channels))
