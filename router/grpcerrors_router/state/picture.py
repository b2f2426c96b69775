"""A picture of the fleet: its state, with the replicas of a node when they are asked for.

A large fleet has hundreds of thousands of replicas, of which nobody looks at more than a few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpcerrors_router.state.nodes import Moment, replica_states

if TYPE_CHECKING:
    from grpcerrors_protocol.fleet_pb2 import FleetState, NodeState, ReplicaState
    from grpcerrors_router.view.table import RoutingTable


class Picture:
    """The state of the fleet at one moment.

    Attributes:
        fleet: the state; only nodes with problems have replicas.
    """

    def __init__(self, fleet: FleetState, table: RoutingTable, moment: Moment) -> None:
        self.fleet = fleet
        self._table = table
        self._moment = moment

    def replicas(self, node: NodeState) -> list[ReplicaState]:
        """Return the replicas of a node, by model."""
        entry = self._table.nodes.get(node.name)
        return replica_states(entry, node.state, self._moment) if entry is not None else []

    def held(self, node: str) -> int:
        """Return how many models a node holds."""
        entry = self._table.nodes.get(node)
        return len(entry.replicas) if entry is not None else 0

    def holders(self, model: str) -> set[str]:
        """Return the names of the nodes that hold a model."""
        return {entry.node.name for entry in self._table.replicas(model)}
