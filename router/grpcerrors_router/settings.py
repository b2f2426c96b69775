"""Every interval, limit and budget of the router. Seconds, bytes, counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """The defaults suit a fleet on one local network.

    Nodes: `heartbeat_interval` (s) is what nodes are asked for. A node that was silent for
    `fresh_for` (s) is probed before it is picked, and while a node was heard within it no other
    process may take its name. `probe_timeout` (s) bounds a probe, `probe_interval` (s) is the pause
    between two probes of a silent node, `status_timeout` (s) bounds a Status.

    Silence: a node with calls in flight that says nothing for `silent_after` (s) is asked for its
    Health; without an answer within `probe_patience` it must accept a new connection within
    `connect_timeout`, and is then taken for busy for `busy_for`. Else it is asked again every
    `probe_interval`, and not picked until it answers. `watch_interval` is how often this is looked
    after; `probe_timeout` and `status_timeout` are the deadlines of Health and Status.

    Registry: `poll_interval` (s) bounds how late a change is seen when its notification is lost.
    `lease_flush` (s) is how often a router writes that it is alive and what is in use, `lease_ttl`
    (s) how long it counts as alive without. `node_retention` (s) is how long a node that registered
    itself may be silent before it is forgotten, `heal_retention` (s) the age at which heals are
    deleted, `prune_interval` (s) how often that happens. `outbox_limit` is how many changes may
    wait while the registry is away.

    Loads: `load_timeout` (s) bounds one LoadModel of a model without a timeout of its own.
    `load_lease` (s) is how long a job counts when its router stops renewing it. `load_backoff` (s)
    is the pause after a failed load; it doubles up to `load_backoff_max` (s). While a model that a
    node refused is younger than `failure_memory` (s), it evicts nothing. `load_hedge` (s) is after
    how long a load is hedged on a node where something must give way, at least; twice the last load
    of the model, if that is longer. `load_hedge_free` (s) is the same for a node with a free slot.
    `free_timeout` (s) bounds a Free, `quiesce_timeout` (s) the wait for calls on what is evicted.

    Waiting: `max_waiting` requests may wait for one model, more are RESOURCE_EXHAUSTED.
    `min_residency` (s) is how long a model stays after its load while others wait for its slot.
    `drain_after` (s) is how long a model waits for an idle slot before a busy one takes no new
    calls. `place_retry` (s) is the longest pause between two looks for a slot.
    `replace_interval` (s) is how often a replica that was loaded with other options is looked for.

    Evidence: what a node says of its model holds for `status_fresh`. An error that a reload did not
    cure is no evidence for `cause_pause` at first, twice as long each time, up to
    `cause_pause_max`.

    Calls: a request is sent to at most `attempts` replicas. Over `retry_window` seconds, re-sent
    requests are at most `retry_ratio` of all, or `retry_floor` per second if that is more; up to
    `retry_queue` more wait for their turn, each at most `retry_wait`.
    `replay_bytes` and `replay_messages` bound what is kept of a request stream to send it again.
    """

    heartbeat_interval: float = 5.0
    fresh_for: float = 8.0
    silent_after: float = 1.0
    watch_interval: float = 0.25
    probe_patience: float = 0.25
    probe_timeout: float = 2.0
    probe_interval: float = 2.0
    connect_timeout: float = 1.0
    busy_for: float = 2.0
    status_timeout: float = 2.0

    poll_interval: float = 0.5
    lease_flush: float = 2.0
    lease_ttl: float = 8.0
    node_retention: float = 3600.0
    heal_retention: float = 7 * 86400.0
    prune_interval: float = 60.0
    outbox_limit: int = 10_000

    load_timeout: float = 600.0
    load_lease: float = 15.0
    load_backoff: float = 1.0
    load_backoff_max: float = 120.0
    failure_memory: float = 600.0
    load_hedge: float = 30.0
    load_hedge_free: float = 3.0
    free_timeout: float = 30.0
    quiesce_timeout: float = 10.0

    max_waiting: int = 5000
    min_residency: float = 1.0
    drain_after: float = 3.0
    place_retry: float = 0.25
    replace_interval: float = 5.0

    status_fresh: float = 1.0
    cause_pause: float = 10.0
    cause_pause_max: float = 3600.0

    storm_drops: int = 6
    storm_base: float = 5.0
    storm_max: float = 300.0

    attempts: int = 4
    retry_window: float = 10.0
    retry_floor: float = 10.0
    retry_ratio: float = 0.2
    retry_wait: float = 20.0
    retry_queue: int = 1000
    replay_bytes: int = 4 * 1024 * 1024
    replay_messages: int = 1024

    # The gateway: calls at a time, and bytes of messages that wait in it to be sent on.
    max_calls: int = 10_000
    max_buffered_bytes: int = 512 * 1024 * 1024
