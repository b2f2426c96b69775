"""Every interval, limit and budget of the router. Seconds, bytes, counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """The defaults suit a fleet on one local network.

    Heartbeats: `heartbeat_interval` is what nodes are asked for; a node that was silent for
    `fresh_for` is probed before it is picked (one idle node costs one probe, a busy one none).

    Silence: a node with calls in flight that says nothing for `silent_after` is asked for its
    Health; without an answer within `probe_patience` it must accept a new connection within
    `connect_timeout`, and is then taken for busy for `busy_for`. Else it is asked again every
    `probe_interval`, and not picked until it answers. `watch_interval` is how often this is looked
    after; `probe_timeout` and `status_timeout` are the deadlines of Health and Status.

    Other routers: `poll_interval` bounds how late a change is seen when its notification is lost;
    `lease_flush` and `lease_ttl` bound how long a dead router's calls in flight count on.

    Evidence: what a node says of its model holds for `status_fresh`. An error that a reload did not
    cure is no evidence for `cause_pause` at first, twice as long each time, up to
    `cause_pause_max`.

    Calls: a request is sent to at most `attempts` replicas. Over `retry_window` seconds, re-sent
    requests are at most `retry_ratio` of all, or `retry_floor` per second if that is more.
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
    lease_flush: float = 1.0
    lease_ttl: float = 8.0

    load_timeout: float = 600.0
    load_lease: float = 15.0
    load_backoff: float = 1.0
    load_backoff_max: float = 120.0
    free_timeout: float = 30.0
    quiesce_timeout: float = 10.0
    place_retry: float = 0.25
    place_timeout: float = 10.0

    status_fresh: float = 1.0
    cause_pause: float = 10.0
    cause_pause_max: float = 3600.0

    storm_drops: int = 3
    storm_base: float = 5.0
    storm_max: float = 300.0

    attempts: int = 4
    retry_window: float = 10.0
    retry_floor: float = 10.0
    retry_ratio: float = 0.2
    replay_bytes: int = 4 * 1024 * 1024
    replay_messages: int = 1024

    # The gateway: calls at a time, and bytes of messages that wait in it to be sent on.
    max_calls: int = 10_000
    max_buffered_bytes: int = 512 * 1024 * 1024
