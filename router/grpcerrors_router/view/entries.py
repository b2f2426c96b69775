"""The rows of the routing table: nodes, and the models that they hold. Times are monotonic."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpcerrors_router.entities import Load, Node, Replica


class ReplicaEntry:
    """One load of a model on a node, with the calls that this process has on it.

    A later load is another entry: releasing a call on this one never touches the later one.
    `evicted_by` is the generation of the job that takes it from its node, `evicting_until` when
    that job's lease runs out. `reported` is how many calls the node itself has last counted.
    `spared_until`: it did not become idle for an eviction, so it is not asked before then.
    `has_served`: it has served a request. `confirmed_at`: when it last proved to be there.
    `connection`: how often the node's connection had been lost when the replica was known to be
    there; None before it is first picked.
    """

    __slots__ = (
        "confirmed_at",
        "connection",
        "evicted_by",
        "evicting_until",
        "has_served",
        "in_flight",
        "last_used",
        "live",
        "node",
        "reported",
        "row",
        "spared_until",
    )

    def __init__(self, node: NodeEntry, row: Replica, now: float) -> None:
        self.node = node
        self.row = row
        self.in_flight = 0
        self.reported = row.in_flight
        self.last_used = row.loaded_at
        self.live = True
        self.has_served = False
        self.connection: int | None = None
        self.confirmed_at = now
        self.evicted_by = 0
        self.evicting_until = 0.0
        self.spared_until = 0.0

    @property
    def model(self) -> str:
        """The model's name."""
        return self.row.model

    @property
    def generation(self) -> int:
        """The registry's number for this load."""
        return self.row.generation

    def pickable(self, now: float) -> bool:
        """Whether requests may go there."""
        open_ = self.live and self.node.open and self.evicting_until <= now
        return open_ and not self.abandoned(now)

    def abandoned(self, now: float) -> bool:
        """Whether a router died while it evicted this from a foreign node.

        Such a node never says what it holds, and may have loaded the other model by now.
        """
        return bool(self.evicted_by) and self.evicting_until <= now and self.node.info.foreign


class NodeEntry:
    """One node, as this router sees it. Times are on the monotonic clock.

    `heard_at` is its last sign of life, `fresh_until` how long that is good for, `probed_at` when
    it was last asked. It is not picked while it is not `reachable`, and picked last while `busy`.
    """

    __slots__ = (
        "busy",
        "fresh_until",
        "heard_at",
        "info",
        "loads",
        "probed_at",
        "reachable",
        "replicas",
        "revision",
    )

    def __init__(self, info: Node, revision: int) -> None:
        self.info = info
        self.revision = revision
        self.replicas: dict[str, ReplicaEntry] = {}
        self.loads: dict[str, Load] = {}
        self.reachable = True
        self.busy = False
        self.fresh_until = 0.0
        self.heard_at = 0.0
        self.probed_at = 0.0

    @property
    def name(self) -> str:
        """The node's name."""
        return self.info.name

    @property
    def open(self) -> bool:
        """Whether requests may go there."""
        return self.reachable and not self.info.draining
