"""The router's vocabulary as plain data. Times are unix seconds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What to load when somebody asks for `name`.

    `name` is the routing key: the `x-model-id` metadata and the request's `ModelIdentity`.
    `backend` is the backend type that can hold it. `options` are fields of the protocol's
    `ModelOptions`; `Model` is `name` unless given. `replicas` is wanted over the whole fleet.
    `load_timeout` is how long one LoadModel may take, in seconds; None means the router's setting.
    """

    name: str
    backend: str
    options: Mapping[str, Any] = field(default_factory=dict)
    replicas: int = 1
    load_timeout: float | None = None

    @property
    def identity(self) -> str:
        """The `Model` that it is loaded as, and that `ModelIdentity` names."""
        return str(self.options.get("Model") or self.name)

    @property
    def digest(self) -> str:
        """A digest of what is loaded: it changes when `backend` or `options` do."""
        what = json.dumps([self.backend, self.options], sort_keys=True, default=str)
        return hashlib.sha256(what.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Node:
    """A backend process at an address.

    `foreign` nodes register with nobody and send no heartbeats. `boot_id` names the process behind
    the address, "" when unknown. `inventory` counts the changes of what it holds within one boot.
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


@dataclass(frozen=True, slots=True)
class Replica:
    """A model loaded on a node.

    `generation` is the registry's number for this load, never reused. `held` is the number under
    which the node itself knows the load: the same, or what it reported when the registry adopted a
    model that it had not loaded; 0 when the node was never told one. `options` is the digest of the
    options it was loaded with, "" when unknown. `in_flight` and `last_used` are written behind the
    traffic: calls in flight as last reported, and when the model was last used.
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
    """A load job, under way or failed and backing off. `generation` is its fencing token.

    `victim` is the model that gives way, with its generation; a job whose victim is its own model
    is an unload. `answered`: the node itself gave the reason of the last failure in `message`.
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

    def running(self, now: float) -> bool:
        """Whether its owner still holds the lease."""
        return self.state == "running" and self.lease_until > now

    def evicts(self, replica: Replica, now: float) -> bool:
        """Whether its owner is taking that replica from its node."""
        return self.takes(replica) and self.running(now)

    def takes(self, replica: Replica) -> bool:
        """Whether that replica is its victim, be its owner alive or dead."""
        victim = (self.victim, self.victim_generation)
        return self.state == "running" and victim == (replica.model, replica.generation)

    def backing_off(self, now: float) -> bool:
        """Whether the last try failed so recently that the node should be left alone."""
        return self.state == "failed" and self.retry_at > now


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node with all that the registry knows of it, as of `revision`; `node` None = removed.

    `now` is the registry's own time when it was read: its other times are to be compared with it,
    not with the clock of the reader.
    """

    revision: int
    name: str
    node: Node | None
    replicas: tuple[Replica, ...] = ()
    loads: tuple[Load, ...] = ()
    now: float = 0.0

    def evicting(self, replica: Replica) -> bool:
        """Whether a job is taking that replica from the node."""
        return any(load.evicts(replica, self.now) for load in self.loads)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole registry as of `revision`, read at `now` by the registry's clock."""

    revision: int
    nodes: tuple[NodeView, ...]
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class Heal:
    """One line of the heal log."""

    at: float
    node: str
    model: str
    generation: int
    evidence: str
    action: str
    router: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """A model that a node says it holds; generation 0 when it was never told one."""

    model: str
    generation: int = 0
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Who a node is and what it really holds."""

    node: str
    address: str
    backend: str
    slots: int
    boot_id: str
    inventory_version: int
    models: tuple[Held, ...] = ()


@dataclass(frozen=True, slots=True)
class Correction:
    """What a heartbeat changed: rows that it disproved, and rows of an earlier process."""

    heals: tuple[Heal, ...] = ()
    restarted: tuple[Replica, ...] = ()


@dataclass(frozen=True, slots=True)
class Use:
    """How a replica is used: calls in flight, and seconds since the last one began or ended."""

    generation: int
    in_flight: int
    idle: float


@dataclass(frozen=True, slots=True)
class RouterRow:
    """A router that shares the registry, and until when it counts as alive.

    It has followed the registry as far as `seen_revision`, and has no call in flight on anything
    that was being evicted by then.
    """

    name: str
    seen_revision: int
    expires_at: float
    session: str = ""
