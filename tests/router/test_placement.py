"""Placement: where a model is loaded, and which replica is evicted for it."""

from __future__ import annotations

from typing import Any

import pytest

from grpcerrors_router import ModelSpec, Settings
from grpcerrors_router.clock import SystemClock
from grpcerrors_router.entities import Load, Node, NodeView, Replica
from grpcerrors_router.loads.placement import Later, Nowhere, Place, Terms, place
from grpcerrors_router.loads.quarantine import Quarantine
from grpcerrors_router.view.table import RoutingTable
from tests.router.support.clock import HandClock

SETTINGS = Settings()


@pytest.fixture
def table() -> RoutingTable:
    """Return a table with one node, whose only slot holds model m."""
    return loaded(Replica("a", "m", 9, 9), now=1000.0)


def place_n(table: RoutingTable, *, evict: bool = True, drain: bool = False) -> Any:
    now = table._clock.monotonic()
    quarantine = Quarantine(SETTINGS, SystemClock())
    terms = Terms(evict=evict, drain=drain)
    return place(table, ModelSpec("n", "fake"), now, quarantine, SETTINGS, terms)


def test_a_node_that_was_never_heard_comes_last(table: RoutingTable) -> None:
    for name, heard in (("b", 0.0), ("c", 900.0)):
        known = Node(name, f"127.0.0.1:{ord(name)}", "fake", foreign=True, last_seen=heard)
        table.apply(NodeView(10, name, known, now=1000.0))
    assert place_n(table) == Place(table.nodes["c"])


def test_an_idle_replica_gives_way(table: RoutingTable) -> None:
    assert place_n(table) == Place(table.nodes["a"], table.pick("m"))
    assert isinstance(place_n(table, evict=False), Nowhere)


def test_a_replica_in_use_is_no_victim(table: RoutingTable) -> None:
    """Invariant 10."""
    entry = table.pick("m")
    assert entry is not None
    table.enter(entry)
    assert place_n(table) == Later(), "invariant 10: the replica is in use"
    assert place_n(table, drain=True) == Place(table.nodes["a"], entry), "it takes no new calls"
    table.leave(entry)
    assert isinstance(place_n(table), Place)


def test_a_model_stays_for_a_while_after_its_load() -> None:
    table = loaded(Replica("a", "m", 9, 9, loaded_at=100.0), now=100.5)
    assert place_n(table) == Later()
    table = loaded(Replica("a", "m", 9, 9, loaded_at=100.0), now=101.5)
    assert isinstance(place_n(table), Place)


@pytest.mark.parametrize(
    ("failures", "answered", "age", "spared"),
    [
        (1, True, 10.0, True),
        (1, False, 10.0, False),
        (2, False, 10.0, True),
        (1, True, SETTINGS.failure_memory + 1, False),
    ],
)
def test_a_model_that_fails_to_load_evicts_nothing(
    failures: int, answered: bool, age: float, spared: bool
) -> None:
    """One load without an answer is no failure of the model; a refusal, or two of these, is."""
    table = loaded(Replica("a", "m", 9, 9), now=1000.0)
    failed = Load(
        "b", "n", 8, "r", "failed", 0.0, 0.0, failures=failures, retry_at=1000.0 - age,
        message="out of memory", answered=answered,
    )  # fmt: skip
    table.apply(NodeView(10, "b", Node("b", "127.0.0.1:2", "other"), (), (failed,), 1000.0))
    found = place_n(table)
    if spared:
        assert isinstance(found, Nowhere)
        assert found.message == "out of memory"
    else:
        assert isinstance(found, Place)


def test_an_expired_eviction_frees_its_victim() -> None:
    """Invariant 17: the router that evicted has died, and nothing else ends its eviction."""
    job = Load("a", "n", 12, "dead", "running", 0.0, 200.0, "m", victim_generation=9)
    row = Replica("a", "m", 9, 9)
    assert loaded(row, job, now=199.0).pick("m") is None
    assert place_n(loaded(row, job, now=199.0)) == Later()
    table = loaded(row, job, now=201.0)
    assert table.pick("m") is not None
    assert isinstance(place_n(table), Place)


def test_an_eviction_ends_with_its_lease_without_any_news() -> None:
    """Invariant 17: it ends without a new view of the registry."""
    job = Load("a", "n", 12, "dead", "running", 0.0, 200.0, "m", victim_generation=9)

    table = RoutingTable(clock := HandClock())
    node = Node("a", "127.0.0.1:1", "fake")
    table.apply(NodeView(9, "a", node, (Replica("a", "m", 9, 9),), (job,), 199.0))
    assert table.pick("m") is None
    clock.advance(2.0)
    assert table.pick("m") is not None, "invariant 17: the lease has run out"


def test_what_a_dead_router_evicted_from_a_foreign_node_is_not_believed() -> None:
    """A foreign node does not report whether it holds this or another model (invariant 6)."""
    job = Load("a", "n", 12, "dead", "running", 0.0, 200.0, "m", victim_generation=9, asked=True)
    table = loaded(Replica("a", "m", 9, 9), job, now=201.0, foreign=True)
    assert table.pick("m") is None
    now = table._clock.monotonic()
    quarantine = Quarantine(SETTINGS, SystemClock())
    found = place(table, ModelSpec("m", "fake"), now, quarantine, SETTINGS, Terms())
    assert isinstance(found, Place), "it is loaded again"


def test_what_a_dead_router_did_not_ask_a_foreign_node_to_unload_is_believed() -> None:
    """Only news of the registry says so: the job may have been renewed, and the node asked."""
    job = Load("a", "n", 12, "dead", "running", 0.0, 200.0, "m", victim_generation=9)
    table = RoutingTable(clock := HandClock())
    node = Node("a", "127.0.0.1:1", "fake", foreign=True)
    row = Replica("a", "m", 9, 9)
    table.apply(NodeView(9, "a", node, (row,), (job,), 199.0))
    clock.advance(2.0)
    assert table.pick("m") is None
    table.apply(NodeView(10, "a", node, (row,), (job,), 201.0))
    assert table.pick("m") is not None


def loaded(row: Replica, *jobs: Load, now: float, foreign: bool = False) -> RoutingTable:
    """Return a table with one node, read at `now` by the registry's clock."""
    table = RoutingTable()
    node = Node("a", "127.0.0.1:1", "fake", foreign=foreign)
    table.apply(NodeView(9, "a", node, (row,), jobs, now))
    return table


def test_the_attempts_of_one_request_are_no_storm() -> None:
    """Each attempt may meet a replica that has just been evicted."""
    assert SETTINGS.storm_drops > SETTINGS.attempts
