"""The states of nodes and replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpcerrors_protocol.fleet_pb2 import NodeState, ReplicaState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpcerrors_router.entities import ModelSpec, Vitals
    from grpcerrors_router.view.entries import NodeEntry, ReplicaEntry


@dataclass(frozen=True, slots=True)
class Moment:
    """What a state is built from, at one moment.

    Attributes:
        now: seconds on the monotonic clock.
        offset: the registry's Unix seconds minus that clock.
        fresh_for: seconds without a heartbeat after which a node is silent.
        models: the models of models.toml.
        vitals: what the registry records; its last known state if it is down.
        calls: the calls in flight on each replica that has some.
    """

    now: float
    offset: float
    fresh_for: float
    models: Mapping[str, ModelSpec]
    vitals: Vitals
    calls: Mapping[ReplicaEntry, int]

    def unix(self, at: float) -> float:
        """Return a time on the monotonic clock in Unix seconds; 0 for 0, which means never."""
        return at + self.offset if at else 0.0


def node_state(node: NodeEntry, moment: Moment, calls: int) -> NodeState:
    """Return the state of a node with its calls in flight, without its replicas."""
    seen = max(moment.vitals.seen.get(node.name, 0.0), node.info.last_seen)
    # The registry counts back from when it writes, so its times may be a little late.
    heard = min(max(moment.unix(node.heard_at), seen), moment.unix(moment.now))
    state, why = _node_state(node, moment.now + moment.offset - heard, moment)
    return NodeState(
        name=node.name,
        address=node.info.address,
        backend=node.info.backend,
        slots=node.info.slots,
        state=state,
        since=heard if state == "silent" else moment.unix(node.changed_at),
        why=why,
        last_heard=heard,
        tls=node.info.tls,
        foreign=node.info.foreign,
        draining=node.info.draining,
        calls=calls,
    )


def replica_states(node: NodeEntry, state: str, moment: Moment) -> list[ReplicaState]:
    """Return the states of the replicas of a node, which is in `state`."""
    return [_replica(node.replicas[model], moment, state=state) for model in sorted(node.replicas)]


def _node_state(  # noqa: PLR0911 - one for each state
    node: NodeEntry, silence: float, moment: Moment
) -> tuple[str, str]:
    info = node.info
    if not node.reachable:
        said = f" ({node.trouble[:200]})" if node.trouble else ""
        return "unreachable", f"it accepts no connection at {info.address}{said}"
    if node.denial:
        return "refusing", node.denial
    if info.draining:
        return "draining", "an operator drains it: it gets no new requests and no loads"
    if node.busy:
        return "busy", "it accepts connections, but does not answer Health"
    if not info.foreign and silence > moment.fresh_for:
        return "silent", "it sends no heartbeats"
    if not node.was_heard:
        return "unknown", "it has not answered yet"
    return "up", ""


def _replica(entry: ReplicaEntry, moment: Moment, *, state: str) -> ReplicaState:
    proved_at, proof = entry.confirmed_at, entry.proof
    if entry.listed_at > proved_at:
        proved_at, proof = entry.listed_at, "heartbeat"
    _, used = moment.vitals.uses.get(entry.generation, (0, 0.0))
    used = min(max(moment.unix(entry.last_used), used), moment.unix(moment.now))
    proved = moment.unix(proved_at)
    return ReplicaState(
        model=entry.model,
        state=_replica_state(entry, moment, state),
        generation=entry.generation,
        calls=moment.calls.get(entry, 0),
        # The registry's times are known less exactly than those of this router.
        loaded_at=min(moment.unix(entry.row.loaded_at), used, proved),
        last_used=used,
        proved_at=proved,
        proof=proof,
    )


def _replica_state(entry: ReplicaEntry, moment: Moment, node: str) -> str:
    if entry.evicted_by and (entry.evicting_until > moment.now or entry.abandoned(moment.now)):
        return "evicting"
    if node in ("unreachable", "refusing", "draining"):
        return node
    if entry.loading_until:
        return "loading"
    spec = moment.models.get(entry.model)
    if spec is not None and entry.row.options and entry.row.options != spec.digest:
        return "outdated"
    return "ready"
