"""The entries of the routing table: nodes and replicas. Times are on the monotonic clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpcerrors_router.entities import Load, Node, Replica


class ReplicaEntry:
    """A replica, and the calls that this router has in flight on it.

    A later load of the model is another entry, so the end of a call never affects the wrong load.

    Attributes:
        node: the node.
        row: the replica as the registry has it, with times on the monotonic clock.
        in_flight: calls in flight from this router.
        reported: calls in flight, as the node last reported.
        last_used: when a call last began or ended.
        live: False once the replica is gone.
        has_served: whether it has served a request.
        connection: how often the node's connection had been lost when the replica was last known
            to exist; None before the replica is first picked.
        confirmed_at: when the node last proved that it holds the model, except by a heartbeat.
        proof: what proved it then: "load", "answer", "error" or "status".
        listed_at: when a heartbeat last listed it; 0 for never.
        evicted_by: the generation of the job that evicts it; 0 for none.
        evicting_until: when the lease of that job expires.
        spared_until: until when it is not drained again, since the last attempt failed.
        loading_until: until when its node said that it is loading the model; 0 once it has served.
        loading_since: when its node first said so; 0 once it has served.
        overdue: whether that load takes so long that the model is loaded elsewhere too.
        reloadable: whether it may be loaded again without the registry once it is dropped.
    """

    __slots__ = (
        "confirmed_at",
        "connection",
        "evicted_by",
        "evicting_until",
        "has_served",
        "in_flight",
        "last_used",
        "listed_at",
        "live",
        "loading_since",
        "loading_until",
        "node",
        "overdue",
        "proof",
        "reloadable",
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
        self.proof = "load"
        self.listed_at = 0.0
        self.evicted_by = 0
        self.evicting_until = 0.0
        self.spared_until = 0.0
        self.loading_until = 0.0
        self.loading_since = 0.0
        self.overdue = False
        self.reloadable = True

    @property
    def model(self) -> str:
        """The model's name."""
        return self.row.model

    @property
    def generation(self) -> int:
        """The registry's number for this load."""
        return self.row.generation

    def pickable(self, now: float) -> bool:
        """Return whether requests may be sent to it."""
        open_ = self.live and self.node.open and self.evicting_until <= now
        return open_ and not self.abandoned(now)

    def abandoned(self, now: float) -> bool:
        """Return whether a router may have died after it asked a foreign node to give this up.

        Such a node does not report what it holds, and may hold the other model by now.
        """
        return bool(self.evicted_by) and self.evicting_until <= now and self.node.info.foreign


class NodeEntry:
    """A node, as this router sees it.

    Attributes:
        info: the node as the registry has it.
        revision: the revision of that state.
        replicas: its replicas, by model.
        loads: its load jobs, by model.
        reachable: whether it may be picked.
        busy: whether it is picked last.
        denial: why it refuses the calls of this router itself; "" if it does not.
        changed_at: when one of these, or whether it is draining, last changed.
        trouble: why it did not answer its last probe; "" if it did.
        refuses: whether that probe failed at once, since nothing listens at its address.
        losses: how often its connection had been lost when it was last picked.
        fresh_until: until when it needs no probe.
        heard_at: when it last answered.
        probed_at: when it was last probed.
    """

    __slots__ = (
        "busy",
        "changed_at",
        "denial",
        "fresh_until",
        "heard_at",
        "info",
        "loads",
        "losses",
        "probed_at",
        "reachable",
        "refuses",
        "replicas",
        "revision",
        "trouble",
    )

    def __init__(self, info: Node, revision: int, now: float) -> None:
        self.info = info
        self.revision = revision
        self.changed_at = now
        self.trouble = ""
        self.refuses = False
        self.replicas: dict[str, ReplicaEntry] = {}
        self.loads: dict[str, Load] = {}
        self.reachable = True
        self.busy = False
        self.denial = ""
        self.losses = 0
        self.fresh_until = 0.0
        self.heard_at = 0.0
        self.probed_at = 0.0

    @property
    def name(self) -> str:
        """The node's name."""
        return self.info.name

    @property
    def was_heard(self) -> bool:
        """Whether it has ever answered a router that shares the registry."""
        return bool(self.heard_at or self.info.last_seen)

    @property
    def open(self) -> bool:
        """Whether requests may be sent to it."""
        return self.reachable and not self.info.draining and not self.denial
