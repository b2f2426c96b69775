"""The state of the fleet after any events in any order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grpcerrors_router import ModelSpec, NodeRegistry, SmartRouter
from grpcerrors_router.entities import Load, Node, NodeView, Replica
from grpcerrors_router.errors import NoCapacity, RegistryUnavailable, UnknownModel
from grpcerrors_router.state import recorder
from grpcerrors_router.state.recorder import Recorder
from grpcerrors_router.view.table import RoutingTable
from tests.router.support.clock import HandClock

if TYPE_CHECKING:
    from pathlib import Path

    from grpcerrors_router.view.entries import ReplicaEntry

NAMES = st.sampled_from(["a", "b", "c", "d", "x\x1b[2J" * 200])
GENERATIONS = st.integers(1, 5)
SECONDS = st.floats(0, 100)
LIMITS = {
    "MODELS_LIMIT": 3, "HAPPENINGS_LIMIT": 4, "HEALS_LIMIT": 3, "REFUSALS_LIMIT": 3,
    "LOADS_LIMIT": 2, "TEXT_LIMIT": 50,
}  # fmt: skip

EVENTS = st.one_of(
    st.tuples(st.just("load_started"), NAMES, NAMES, GENERATIONS),
    st.tuples(st.just("load_finished"), NAMES, NAMES, GENERATIONS, SECONDS, st.text()),
    st.tuples(st.just("heal"), NAMES, NAMES, GENERATIONS, st.just("details"), NAMES),
    st.tuples(st.just("recovered"), NAMES, NAMES, GENERATIONS, SECONDS, NAMES, GENERATIONS),
    st.tuples(st.just("evicted"), NAMES, NAMES, GENERATIONS, st.text()),
    st.tuples(st.just("restarted"), NAMES, NAMES, GENERATIONS),
    st.tuples(st.just("exhausted"), NAMES, NAMES, st.text()),
    st.tuples(
        st.just("refused"),
        NAMES,
        st.builds(NoCapacity, NAMES, st.text(max_size=99), st.just(1.0))
        | st.builds(UnknownModel, NAMES, st.just(["a"])),
    ),
    st.tuples(st.just("registry_down"), st.text()),
    st.tuples(st.just("registry_up"), st.integers(0, 9)),
)


@st.composite
def views(draw: Any) -> NodeView:
    """Return any state of a node, at a random revision."""
    name = draw(st.sampled_from("abc"))
    if draw(st.booleans()) and draw(st.booleans()):
        return NodeView(draw(st.integers(1, 99)), name, None)
    node = Node(
        name, f"127.0.0.1:{draw(st.integers(1, 3))}", draw(st.sampled_from(["x", "y"])),
        draw(st.integers(1, 3)), foreign=draw(st.booleans()), draining=draw(st.booleans()),
        last_seen=1_000_000.0,
    )  # fmt: skip
    held = draw(st.lists(st.sampled_from("mno"), unique=True))
    replicas = tuple(Replica(name, each, draw(GENERATIONS), 0) for each in held)
    jobs = tuple(
        Load(
            name, each, draw(GENERATIONS), "r", draw(st.sampled_from(["running", "failed"])),
            1e6, draw(st.sampled_from([1e6 + 9, 1.0])), draw(st.sampled_from(["", *held])),
            draw(st.integers(0, 3)), draw(st.sampled_from([0.0, 1e6 + 5])), draw(st.text()),
            victim_generation=draw(GENERATIONS),
        )
        for each in draw(st.lists(st.sampled_from("mno"), unique=True))
    )  # fmt: skip
    return NodeView(draw(st.integers(1, 99)), name, node, replicas, jobs, 1e6)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in LIMITS.items():
        monkeypatch.setattr(recorder, name, limit)


@pytest.mark.usefixtures("small")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(EVENTS, st.floats(0, 200)), max_size=60))
def test_the_recorder_keeps_little_whatever_happens(events: list[Any]) -> None:
    clock = HandClock()
    known = Recorder(RoutingTable(clock), clock)
    for (name, *arguments), pause in events:
        getattr(known, name)(*arguments)
        clock.advance(pause)
    assert len(known.refusals()) <= LIMITS["REFUSALS_LIMIT"]
    assert all(refusal.count(clock.now) == count > 0 for refusal, count in known.refusals())
    with_history = [model for model in "abcd" if known.history(model)]
    assert len(with_history) <= LIMITS["MODELS_LIMIT"]
    for model in with_history:
        past = known.history(model)
        assert len(past) <= LIMITS["HAPPENINGS_LIMIT"]
        assert [each.at for each in past] == sorted(each.at for each in past)
        assert all(len(each.why) <= LIMITS["TEXT_LIMIT"] + 60 for each in past)
        assert all(each.why.isprintable() for each in past)
        known.ended(model)
        known.failure(model)
    sizes = [len(kept) for kept in vars(known).values() if hasattr(kept, "popitem")]
    assert max(sizes) <= max(LIMITS.values())


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(views() | EVENTS | st.sampled_from(["enter", "leave", "lost"]), max_size=30),
    pauses=st.lists(SECONDS, min_size=30, max_size=30),
)
def test_the_state_can_be_built_whatever_happens(
    tmp_path_factory: Any, changes: list[Any], pauses: list[float]
) -> None:
    folder: Path = tmp_path_factory.getbasetemp()
    asyncio.run(_build(f"sqlite:///{folder / 'any.db'}", changes, pauses))


async def _build(url: str, changes: list[Any], pauses: list[float]) -> None:
    clock = HandClock()
    models = {
        "m": ModelSpec("m", "x"),
        "n": ModelSpec("n", "x", replicas=2),
        "z": ModelSpec("z", "nowhere"),
    }
    router = SmartRouter(NodeRegistry(url), models, clock=clock)
    router.outbox.note_down(RegistryUnavailable("away"), "read")
    in_use: list[ReplicaEntry] = []
    for change, pause in zip(changes, pauses, strict=False):
        _apply(router, change, in_use)
        clock.advance(pause)
        for entry in router.table.nodes.values():
            entry.fresh_until = clock.now + 1  # so that nothing is probed
    state = await router.state.fleet()
    await router.close()
    assert state.in_flight == len(in_use)
    assert [node.name for node in state.nodes] == sorted(router.table.nodes)
    assert {"m", "n", "z"} <= {model.model for model in state.models}
    assert len({model.model for model in state.models}) == len(state.models)
    for model in state.models:
        assert min(model.wanted, model.present, model.loading, model.calls, model.waiting) >= 0
        missing = model.listed and model.present < model.wanted
        assert bool(model.why) == missing
    for node in state.nodes:
        assert node.calls >= sum(replica.calls for replica in node.replicas) >= 0
        assert bool(node.why) == (node.state != "up")
        held = [replica.model for replica in node.replicas]
        assert held == sorted(set(held))
    assert all(pause.until > state.now for pause in state.pauses)
    assert state.FromString(state.SerializeToString()) == state


def _apply(router: SmartRouter, change: Any, in_use: list[ReplicaEntry]) -> None:
    table = router.table
    if isinstance(change, NodeView):
        table.apply(change)
    elif isinstance(change, tuple):
        getattr(router.events, change[0])(*change[1:])
    elif change == "enter" and (entry := table.pick("m") or table.pick("n")):
        table.enter(entry)
        in_use.append(entry)
    elif change == "leave" and in_use:
        table.leave(in_use.pop())
    elif change == "lost":
        for node in table.nodes.values():
            table.set_state(node, reachable=False, busy=True)
