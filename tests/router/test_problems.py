"""What is wrong in a fleet, in words: each fault names its cause, its node and its cure."""

from __future__ import annotations

from typing import Any

import pytest

from grpcerrors import Evidence
from grpcerrors_protocol.fleet_pb2 import (
    FleetState,
    Heal,
    LoadState,
    ModelState,
    NodeState,
    PauseState,
    Problem,
    RefusalState,
    RegistryState,
    ReplicaState,
)
from grpcerrors_router.state.problems import problems, summary
from grpcerrors_router.state.words import EVIDENCE

NOW = 1_000_000.0


def fleet(**parts: Any) -> FleetState:
    """A healthy fleet of three nodes, changed by `parts`."""
    replica = ReplicaState(model="tiny", state="ready", generation=7)
    healthy = {
        "now": NOW,
        "registry": RegistryState(kind="sqlite", up=True),
        "nodes": [
            NodeState(name="a", address="h:1", backend="echo", state="up", replicas=[replica]),
            NodeState(name="b", address="h:2", backend="echo", state="up"),
            NodeState(name="gpu-1", address="h:9", backend="echo", state="up"),
        ],
        "models": [ModelState(model="tiny", backend="echo", listed=True, wanted=1, present=1)],
    }
    return FleetState(**{**healthy, **parts})


def node(state: str, **more: Any) -> list[NodeState]:
    held = [ReplicaState(model="tiny")]
    return [
        NodeState(name="a", address="h:1", backend="echo", state="up"),
        NodeState(**{"name": "gpu-1", "address": "h:9", "backend": "echo", "state": state,
                     "since": NOW - 9, "replicas": held, **more}),
    ]  # fmt: skip


def load(**more: Any) -> list[LoadState]:
    return [LoadState(**{"model": "big", "node": "gpu-1", "owner": "r", "since": NOW - 9, **more})]


def pause(kind: str, **more: Any) -> PauseState:
    return PauseState(**{"kind": kind, "node": "gpu-1", "model": "big", "until": NOW + 5, **more})


def refusal(reason: str, text: str, **more: Any) -> list[RefusalState]:
    return [RefusalState(**{"reason": reason, "text": text, "count": 3, "last": NOW - 1, **more})]


def heals(count: int, **more: Any) -> list[Heal]:
    told = {"node": "gpu-1", "model": "big", "evidence": "details", "action": "dropped", **more}
    return [Heal(at=NOW - 2 - each, **told) for each in range(count)]


def test_a_healthy_fleet_has_no_problem_and_says_so() -> None:
    state = fleet(in_flight=1)
    assert problems(state) == []
    assert summary(state) == "All is well. 3 nodes, 1 model loaded, 1 call in flight"


@pytest.mark.parametrize(
    ("parts", "severity", "kind", "words"),
    [
        (
            {"registry": RegistryState(kind="postgresql", error="connection refused.")},
            "error", "registry-down",
            ["registry (postgresql)", "connection refused.", "Start the database"],
        ),
        ({"nodes": []}, "warning", "no-nodes", ["No node", "grpcerrors-backend", "add-node"]),
        (
            {"nodes": node("unreachable")}, "error", "node-down",
            ["gpu-1 (h:9)", "accepts no connection", "holds tiny", "start it", "remove-node gpu-1"],
        ),
        ({"nodes": node("silent")}, "error", "node-down", ["gpu-1", "no heartbeats", "start it"]),
        ({"nodes": node("busy")}, "warning", "node-busy", ["gpu-1", "not answer", "workers"]),
        ({"nodes": node("draining")}, "note", "node-draining", ["gpu-1 is drained", "end it"]),
        (
            {"loads": load(usual_seconds=0.5, waiting=2)}, "warning", "load-hangs",
            ["gpu-1 has been loading big", "last load took 0.5 s", "Requests wait", "restart"],
        ),
        ({"loads": load()}, "warning", "load-hangs", ["no earlier load", "read the node's log"]),
        ({"loads": load(owner="")}, "warning", "load-hangs", ["another client than a router"]),
        (
            {"loads": load(node="", waiting=3, why="every slot is in use")},
            "error", "no-capacity", ["big wait", "every slot is in use", "Add a node or slots"],
        ),
        (
            {"pauses": [pause("quarantine")]}, "error", "quarantine",
            ["gpu-1 keeps losing big", "more memory", "forgive"],
        ),
        (
            {"pauses": [pause("back-off", why="no such file."), pause("back-off", node="gpu-2",
                                                                     why="no such file.")]},
            "error", "load-fails",
            ["big cannot be loaded on gpu-1 and gpu-2: no such file.", "Fix what the message"],
        ),
        ({"pauses": [pause("doubt", why="w")]}, "note", "doubt", ["gpu-1", "big", "ModelGuard"]),
        (
            {"models": [ModelState(model="big", backend="gpu", listed=True)]},
            "warning", "no-capacity", ['backend "gpu"', "big cannot be loaded", "models.toml"],
        ),
        (
            {"refusals": refusal("NO_CAPACITY", "no node can take big: all drain", model="big")},
            "error", "no-capacity", ["No node can take big: all drain.", "Add a node"],
        ),
        (
            {"refusals": refusal("OVERLOADED", "5000 requests wait", model="big")},
            "error", "overload", ["5000 requests wait.", "retry after the time"],
        ),
        (
            {"refusals": refusal("RESOURCE_EXHAUSTED", "2 calls run", model="big", node="gpu-1")},
            "error", "overload", ["gpu-1 refuses requests for big", "2 calls run", "--max-calls"],
        ),
        (
            {"refusals": refusal("NAME_TAKEN", 'the node name "a" belongs to h:1', node="a")},
            "error", "name-taken", ['The node name "a" belongs to h:1.', "--node-name"],
        ),
        ({"heals": heals(1)}, "note", "lost-model", ["big was gone from node gpu-1", "by itself"]),
        ({"heals": heals(3)}, "warning", "lost-model", ["again and again", "memory", "drain it"]),
        (
            {"heals": heals(1, evidence="mismatch")}, "note", "lost-model",
            ["holds another model", "stop it, or drain the node"],
        ),
    ],
)  # fmt: skip
def test_each_fault_is_one_problem_that_names_cause_and_cure(
    parts: dict[str, Any], severity: str, kind: str, words: list[str]
) -> None:
    (problem,) = problems(fleet(**parts))
    assert (problem.severity, problem.kind) == (severity, kind)
    said = f"{problem.what} {problem.cure}"
    assert [each for each in words if each not in said] == []
    assert ".." not in said


@pytest.mark.parametrize(
    "parts",
    [
        {"loads": load(since=NOW - 2)},  # has only begun
        {"loads": load(usual_seconds=30)},
        {"loads": load(node="", waiting=0)},  # nobody waits
        {"pauses": [pause("retry")]},
        {"refusals": refusal("NO_CAPACITY", "long ago", model="big", last=NOW - 100)},
        {"refusals": refusal("UNKNOWN_MODEL", "a caller's mistake")},
        {"heals": heals(1, action="kept")},
        {"heals": heals(3, node="gone")},
        {"refusals": refusal("RESOURCE_EXHAUSTED", "too many", model="big", node="gone")},
    ],
)
def test_what_is_usual_is_no_problem(parts: dict[str, Any]) -> None:
    assert problems(fleet(**parts)) == []


def test_one_cause_is_told_once() -> None:
    state = fleet(
        nodes=node("unreachable"),
        loads=load(),
        heals=heals(1),
        pauses=[pause("quarantine")],
        refusals=refusal("NO_CAPACITY", "no node can take big", model="big")
        + refusal("LOAD_TIMEOUT", "big was not ready", model="big"),
    )
    assert [each.kind for each in problems(state)] == ["node-down", "quarantine"]


def test_a_backend_that_requests_need_and_no_node_offers_is_an_error() -> None:
    models = [ModelState(model="big", backend="gpu", listed=True)]
    asked = refusal("NO_CAPACITY", "no node offers it", model="big")
    asked += refusal("LOAD_TIMEOUT", "it was loading", model="big")
    assert [each.severity for each in problems(fleet(models=models, refusals=asked))] == ["error"]


def test_the_worst_comes_first_and_many_of_one_kind_are_counted() -> None:
    down = [NodeState(name=f"n{i:03}", address="h:1", state="unreachable") for i in range(400)]
    there = NodeState(name="gpu-1", state="up")
    state = fleet(nodes=[*down, there], heals=heals(1), models=[])
    state.problems.extend(problems(state))
    assert [each.kind for each in state.problems] == ["node-down"] * 6 + ["lost-model"]
    assert state.problems[5].count == 395
    assert "n005, n006, n007 and 392 more" in state.problems[5].what
    assert state.problems[5].cure.endswith("remove-node NAME")
    assert summary(state) == (
        "400 problems and 1 note. 401 nodes, 0 models loaded, 0 calls in flight"
    )


def test_the_sentences_stay_the_same_while_time_passes() -> None:
    def said(now: float) -> list[tuple[str, str]]:
        found: list[Problem] = problems(
            fleet(now=now, nodes=node("unreachable"), pauses=[pause("quarantine")], loads=load())
        )
        return [(each.what, each.cure) for each in found]

    assert said(NOW) == said(NOW + 100)


def test_every_evidence_of_a_heal_has_words() -> None:
    typed_or_not = {each.value for each in Evidence}
    assert EVIDENCE.keys() == typed_or_not | {"mismatch", "heartbeat", "reconnect"}
