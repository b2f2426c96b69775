"""Everything through which a router reaches nodes, as one value that a test can replace."""

from __future__ import annotations

from dataclasses import dataclass

from grpcerrors_router.nodes.channels import Channels
from grpcerrors_router.nodes.control import ControlPlane


@dataclass(frozen=True, slots=True)
class NodeClient:
    """The channels that requests take, and the control plane of the backend protocol."""

    channels: Channels
    control: ControlPlane

    @classmethod
    def over_grpc(cls) -> NodeClient:
        """Reach nodes by their addresses over gRPC."""
        channels = Channels()
        return cls(channels, ControlPlane(channels))
