"""Where a model is loaded, and what has to go for it."""

from __future__ import annotations

import pytest

from grpcerrors_router import ModelSpec, Settings
from grpcerrors_router.clock import SystemClock
from grpcerrors_router.entities import Node, NodeView, Replica
from grpcerrors_router.loads.placement import Nowhere, Place, place
from grpcerrors_router.loads.quarantine import Quarantine
from grpcerrors_router.view.table import RoutingTable


@pytest.fixture
def table() -> RoutingTable:
    """One node with one slot, which model m holds."""
    table = RoutingTable()
    table.apply(NodeView(9, "a", Node("a", "127.0.0.1:1", "fake"), (Replica("a", "m", 9, 9),)))
    return table


def place_n(table: RoutingTable) -> Place | Nowhere:
    return place(table, ModelSpec("n", "fake"), 0.0, Quarantine(Settings(), SystemClock()))


def test_an_idle_replica_gives_way(table: RoutingTable) -> None:
    assert place_n(table) == Place(table.nodes["a"], table.pick("m"))


def test_a_replica_in_use_is_no_victim(table: RoutingTable) -> None:
    """Invariant 10."""
    entry = table.pick("m")
    assert entry is not None
    table.enter(entry)
    assert isinstance(place_n(table), Nowhere), "invariant 10: the replica is in use"
    table.leave(entry)
    assert isinstance(place_n(table), Place)
