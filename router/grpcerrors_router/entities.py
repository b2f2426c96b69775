"""The router's data types. Times are Unix seconds, by the registry's clock."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model that the router can load.

    Attributes:
        name: the routing key, which requests send as `x-model-id`.
        backend: the backend type that can hold the model.
        options: fields of the protocol's `ModelOptions`; `Model` defaults to `name`.
        replicas: how many replicas the whole fleet should hold.
        load_timeout: how long one LoadModel may take, in seconds; None for the router's setting.
    """

    name: str
    backend: str
    options: Mapping[str, Any] = field(default_factory=dict)
    replicas: int = 1
    load_timeout: float | None = None

    @property
    def identity(self) -> str:
        """The `Model` that the node loads, and that a request's `ModelIdentity` names."""
        return str(self.options.get("Model") or self.name)

    @property
    def digest(self) -> str:
        """A digest of `backend` and `options`, by which outdated replicas are found."""
        what = json.dumps([self.backend, self.options], sort_keys=True, default=str)
        return hashlib.sha256(what.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Node:
    """A backend process at an address.

    Attributes:
        name: unique in the registry.
        address: "host:port".
        backend: the backend type.
        slots: how many models it can hold at the same time.
        foreign: it was added by hand, and sends no heartbeats.
        draining: it gets no new requests and no loads.
        boot_id: identifies the process behind the address; "" when unknown.
        inventory: the node's own counter of changes to what it holds, within one boot.
        last_seen: when it was last heard.
        tls: it serves TLS.
        token: the name of the file with the token that its callers must send; "" for none of its
            own. The registry never has the token itself.
        registered_by: the name of the token with which it registered; "" for none.
    """

    name: str
    address: str
    backend: str
    slots: int = 1
    foreign: bool = False
    draining: bool = False
    boot_id: str = ""
    inventory: int = 0
    last_seen: float = 0.0
    tls: bool = False
    token: str = ""
    registered_by: str = ""


@dataclass(frozen=True, slots=True)
class Replica:
    """A model loaded on a node.

    Attributes:
        node: the node's name.
        model: the model's name.
        generation: the registry's number for this load, never reused.
        held: the number by which the node knows the load: `generation`, or what the node reported
            when the registry adopted a model that no router had loaded; 0 when it has none.
        boot_id: the process that holds it; "" when unknown.
        loaded_at: when the load was published.
        options: the digest of the options it was loaded with; "" when unknown.
        in_flight: calls in flight, as last reported.
        last_used: when a call last began or ended, as last reported.
    """

    node: str
    model: str
    generation: int
    held: int
    boot_id: str = ""
    loaded_at: float = 0.0
    options: str = ""
    in_flight: int = 0
    last_used: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """A load job, running or failed and backing off.

    A job whose victim is its own model is an unload.

    Attributes:
        node: the node's name.
        model: the model to load.
        generation: the job's fencing token, and the generation of the replica it publishes.
        owner: the router that runs it.
        state: "running" or "failed".
        started_at: when it was claimed.
        lease_until: when it expires, unless its owner renews it.
        victim: the model to evict for it; "" for none.
        failures: how many loads of the model failed here in a row.
        retry_at: when a failed load may be retried.
        message: why the last load failed.
        victim_generation: the generation of the victim.
        answered: whether `message` came from the node itself.
        asked: whether the node may have been asked to give up the victim.
    """

    node: str
    model: str
    generation: int
    owner: str
    state: str
    started_at: float
    lease_until: float
    victim: str = ""
    failures: int = 0
    retry_at: float = 0.0
    message: str = ""
    victim_generation: int = 0
    answered: bool = False
    asked: bool = False

    def running(self, now: float) -> bool:
        """Return whether its owner still holds the lease."""
        return self.state == "running" and self.lease_until > now

    def evicts(self, replica: Replica, now: float) -> bool:
        """Return whether its owner is evicting that replica."""
        return self.takes(replica) and self.running(now)

    def takes(self, replica: Replica) -> bool:
        """Return whether that replica is its victim, whether or not its owner is alive."""
        victim = (self.victim, self.victim_generation)
        return self.state == "running" and victim == (replica.model, replica.generation)

    def backing_off(self, now: float) -> bool:
        """Return whether the last load failed so recently that the node must not retry it yet."""
        return self.state == "failed" and self.retry_at > now


@dataclass(frozen=True, slots=True)
class NodeView:
    """All that the registry knows about one node, as of `revision`.

    `node` is None when the node was removed. `now` is the registry's time of the read: compare the
    other times with it, not with the reader's own clock.
    """

    revision: int
    name: str
    node: Node | None
    replicas: tuple[Replica, ...] = ()
    loads: tuple[Load, ...] = ()
    now: float = 0.0

    def evicting(self, replica: Replica) -> bool:
        """Return whether a job is evicting that replica."""
        return any(load.evicts(replica, self.now) for load in self.loads)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole registry as of `revision`, read at `now` by the registry's clock."""

    revision: int
    nodes: tuple[NodeView, ...]
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class Heal:
    """One entry of the heal log: a replica that was dropped, kept or reloaded, on evidence."""

    at: float
    node: str
    model: str
    generation: int
    evidence: str
    action: str
    router: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """A model that a node reports; its generation is 0 when no router loaded it."""

    model: str
    generation: int = 0
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A node's report of what it is and which models it holds.

    Attributes:
        node: the node's name.
        address: "host:port" that routers connect to.
        backend: the backend type.
        slots: how many models it can hold at the same time.
        boot_id: new at every start of the process.
        inventory_version: a counter that grows with every change of `models` within one boot.
        models: the models it holds.
        tls: it serves TLS.
        registered_by: the name of the token that it was sent with; "" for none.
    """

    node: str
    address: str
    backend: str
    slots: int
    boot_id: str
    inventory_version: int
    models: tuple[Held, ...] = ()
    tls: bool = False
    registered_by: str = ""


@dataclass(frozen=True, slots=True)
class Correction:
    """What a heartbeat removed: replicas it disproved, and replicas of an earlier process."""

    heals: tuple[Heal, ...] = ()
    restarted: tuple[Replica, ...] = ()


@dataclass(frozen=True, slots=True)
class Use:
    """The use of a replica: calls in flight, and seconds since the last one began or ended."""

    generation: int
    in_flight: int
    idle: float


@dataclass(frozen=True, slots=True)
class RouterRow:
    """A router that shares the registry; it counts as alive until `expires_at`.

    It has read the registry up to `seen_revision`, and has no call in flight on a replica whose
    eviction had begun by then. `session` differs between two processes of one name.
    """

    name: str
    seen_revision: int
    expires_at: float
    session: str = ""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the registry records without a new revision, so that routing tables do not have it.

    Attributes:
        now: the time of the read.
        routers: the routers that are alive.
        heals: the latest heals, newest first.
        seen: when each node was last heard by any router.
        uses: by generation, calls in flight and the last use, as last reported, of the replicas
            that are or were just in use.
    """

    now: float
    routers: tuple[RouterRow, ...] = ()
    heals: tuple[Heal, ...] = ()
    seen: Mapping[str, float] = field(default_factory=dict)
    uses: Mapping[int, tuple[int, float]] = field(default_factory=dict)
