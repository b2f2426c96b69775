"""What the state says of nodes and models, and of why a model is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from grpcerrors_router import ModelSpec
from grpcerrors_router.entities import Load, Node, NodeView, Replica, Vitals
from grpcerrors_router.state.catalogue import Catalogue
from grpcerrors_router.state.nodes import Moment, node_state, replica_states
from grpcerrors_router.state.recorder import Recorder
from grpcerrors_router.view.table import RoutingTable
from tests.router.support.clock import HandClock

SPEC = ModelSpec("m", "x")
NODE = Node("a", "h:1", "x", 1, last_seen=1e6)


class World:
    """A table with one node `a` that holds `m`, unless a test changes that."""

    def __init__(self, node: Node = NODE, *loads: Load, held: str = "m") -> None:
        self.clock = HandClock()
        self.table = RoutingTable(self.clock)
        self.recorder = Recorder(self.table, self.clock)
        rows = tuple(Replica(node.name, each, 7, 7, options="old") for each in held)
        self.show(NodeView(1, node.name, node, rows, loads, 1e6))

    def show(self, view: NodeView) -> None:
        assert self.table.apply(view)

    @property
    def node(self) -> Any:
        return self.table.nodes["a"]

    @property
    def replica(self) -> Any:
        return self.node.replicas["m"]

    def moment(self, models: dict[str, ModelSpec] | None = None) -> Moment:
        return Moment(self.clock.now, 0.0, 8.0, models or {}, Vitals(self.clock.now), {})

    def states(self, models: dict[str, ModelSpec] | None = None) -> tuple[str, str]:
        """Return the states of the node and of its replica."""
        moment = self.moment(models)
        state = node_state(self.node, moment, 0).state
        return state, replica_states(self.node, state, moment)[0].state

    def why(self, spec: ModelSpec = SPEC, **pauses: str) -> str:
        catalogue = Catalogue(
            table=self.table, models={"m": spec}, calls={}, loads=[], pauses=[], waiting={},
            recorder=self.recorder, now=self.clock.now,
        )  # fmt: skip
        return catalogue.model("m").why

    def loaded(self, node: str = "a", generation: int = 9) -> str:
        """Load the model; return the reason in its history."""
        self.recorder.load_started("m", node, generation)
        self.recorder.load_finished("m", node, generation, 1.0, "")
        return self.recorder.history("m")[-1].why


def test_a_node_is_busy_silent_or_unknown() -> None:
    world = World()
    assert world.states() == ("up", "ready")
    world.table.set_state(world.node, reachable=True, busy=True)
    assert world.states() == ("busy", "ready")
    world.table.set_state(world.node, reachable=True, busy=False)
    world.clock.advance(9)
    assert world.states() == ("silent", "ready")
    new = World(replace(NODE, last_seen=0.0, foreign=True))
    assert new.states() == ("unknown", "ready")
    new.node.denial = "it refuses the token"
    assert new.states()[0] == "refusing"


def test_a_replica_is_evicted_loaded_or_outdated() -> None:
    eviction = Load("a", "o", 9, "r", "running", 1e6, 1e6 + 9, "m", victim_generation=7)
    assert World(NODE, eviction).states() == ("up", "evicting")
    world = World()
    world.table.note_loading(world.replica, world.clock.now + 1)
    assert world.states() == ("up", "loading")
    assert World().states({"m": SPEC}) == ("up", "outdated")
    assert World(replace(NODE, draining=True)).states() == ("draining", "draining")


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"reachable": False}, "a, which holds it, is unreachable"),
        ({"denial": "no"}, "a, which holds it, refuses the router's token"),
        ({"info": replace(NODE, draining=True)}, "a, which holds it, is draining"),
    ],
)
def test_a_load_elsewhere_says_what_is_wrong_with_the_node(
    trouble: dict[str, Any], words: str
) -> None:
    world = World()
    world.show(NodeView(2, "b", replace(NODE, name="b", address="h:2"), (), (), 1e6))
    assert world.why() == ""
    for name, value in trouble.items():
        setattr(world.node, name, value)
    assert world.loaded("b") == words
    said = world.why()
    assert said.startswith("a, which holds it, is ")
    assert said.endswith("; the next request loads it")


def test_a_load_says_why_it_began() -> None:
    assert World(held="").loaded() == "it was asked for, and no node held it"
    assert World().loaded("b") == "more than 1 replica of it are wanted"
    world = World()
    world.replica.overdue = True
    assert world.loaded("b") == "a, which holds it, takes long to load it for someone else"
    world = World()
    world.replica.evicting_until = world.clock.now + 1
    assert world.loaded("b") == "a, which holds it, is giving it up"
    running = Load("a", "m", 8, "r", "running", 1e6, 1e6 + 9)
    assert World(NODE, running, held="").loaded("b") == "the load on a takes long"
    for event, arguments, words in (
        ("heal", ("details", "r"), "a no longer held it (evidence: details)"),
        ("evicted", ("by an operator",), "it was unloaded from a by an operator"),
        ("restarted", (), "a, which held it, restarted"),
    ):
        world = World(held="")
        getattr(world.recorder, event)("m", "a", 7, *arguments)
        assert world.loaded() == words
    world = World(held="")
    world.loaded("gone", 5)
    assert world.loaded() == "it was on gone before: gone, which held it, left the fleet"


def test_a_missing_replica_says_what_happens_next() -> None:
    assert World(held="").why() == "the next request loads it"
    assert World(held="o").why().startswith("the next request loads it in place of another model")
    both = World(replace(NODE, slots=2), held="mo")
    both.show(NodeView(2, "b", replace(NODE, name="b"), (Replica("b", "o", 9, 9),), (), 1e6))
    twice = replace(SPEC, replicas=2)
    assert both.why(twice) == "every slot is in use, and nothing is evicted for a further replica"
    failed = World(held="")
    failed.recorder.load_finished("m", "a", 8, 1.0, "every slot is in use", postponed=True)
    assert "failed" not in failed.why(), "another load follows"
    failed.recorder.load_finished("m", "a", 9, 1.0, "out of memory")
    assert failed.why() == "a failed to load it (out of memory); the next request loads it"
    drained = World(replace(NODE, draining=True))
    assert drained.why() == 'the only node of backend "x" is silent or draining'
