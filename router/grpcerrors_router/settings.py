"""The router's settings: every interval, limit and budget."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one router. The defaults suit a fleet on one local network.

    Attributes:
        heartbeat_interval: seconds between the heartbeats that nodes are asked to send.
        fresh_for: seconds for which a node that answered needs no probe. As long as that after its
            last heartbeat, no other process may take its name.
        silent_after: seconds without an answer after which a node with calls in flight is probed.
        watch_interval: seconds between two checks for nodes to probe.
        probe_patience: seconds to wait for Health before a new connection is tried.
        probe_timeout: the deadline of Health, in seconds.
        probe_interval: seconds between two probes of a node that does not answer.
        connect_timeout: seconds within which a busy node must accept a new connection.
        busy_for: seconds until a busy node is probed again.
        status_timeout: the deadline of Status, in seconds.

        poll_interval: seconds between two reads of the registry's changes.
        lease_flush: seconds between two sign-ins of the router, which also write which nodes it has
            heard and which replicas are in use.
        lease_ttl: seconds after its last sign-in for which the router counts as alive.
        max_nodes: how many nodes may register.
        node_retention: seconds that a node that registered itself may be silent before it is
            removed.
        heal_retention: seconds that an entry of the heal log is kept, and a failed load after its
            back-off.
        prune_interval: seconds between two deletions of old rows.
        outbox_limit: how many changes may wait while the registry cannot be written.

        load_timeout: the deadline of LoadModel, in seconds, for models without their own.
        load_lease: seconds for which a job counts after its router stopped renewing it.
        load_backoff: seconds to wait after a failed load; each further failure doubles it.
        load_backoff_max: the longest such wait, in seconds.
        failure_memory: seconds for which a model that a node refused to load evicts nothing.
        load_hedge: seconds after which a load is hedged on a node where a replica must be evicted;
            twice the duration of the model's last load, if that is longer.
        load_hedge_free: the same for a node with a free slot.
        free_timeout: the deadline of Free, in seconds.
        quiesce_timeout: seconds to wait for the calls in flight on a replica that is being evicted.

        max_waiting: how many requests may wait for one model; more get RESOURCE_EXHAUSTED.
        min_residency: seconds after its load for which a replica is not evicted for another model.
        drain_after: seconds that a model waits for an idle replica to evict before it drains one
            that is in use.
        place_retry: seconds until a model that waits for a slot looks again, if nothing changes.
        replace_interval: seconds between two checks for replicas with outdated options.

        status_fresh: seconds for which a Status that contradicted an error is remembered.
        cause_pause: seconds for which an error that a reload did not cure is no evidence; doubled
            each time.
        cause_pause_max: the longest such pause, in seconds.

        storm_drops: how many drops in a row, without a success, quarantine a model on a node.
        storm_base: seconds of the first quarantine; each further drop doubles it.
        storm_max: the longest quarantine, in seconds.

        attempts: how many replicas a request is sent to at most.
        retry_window: seconds over which requests and retries are counted.
        retry_floor: retries per second that are always allowed.
        retry_ratio: retries that are allowed as a share of the requests, if that is more.
        retry_wait: seconds that a retry may wait until the budget allows it.
        retry_queue: how many retries may wait at a time.
        replay_bytes: bytes of a request stream that are kept for a retry.
        replay_messages: messages of a request stream that are kept for a retry.

        max_calls: how many calls the gateway accepts at a time; more get RESOURCE_EXHAUSTED.
        max_caller_calls: the same for one caller: one token, or one host where there are no tokens.
        max_buffered_bytes: bytes of messages that may wait in the gateway, those that are kept for
            a retry included.
        max_caller_bytes: the same for one caller.
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
    max_nodes: int = 5000
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

    max_calls: int = 10_000
    max_caller_calls: int = 5000
    max_buffered_bytes: int = 512 * 1024 * 1024
    max_caller_bytes: int = 256 * 1024 * 1024
