"""The tables that the command line prints."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console

from grpcerrors_protocol.fleet_pb2 import (
    FleetState,
    GetHistoryReply,
    Heal,
    HistoryEntry,
    LoadState,
    ModelState,
    NodeState,
    PauseState,
    RefusalState,
    RegistryState,
    ReplicaState,
    RouterState,
)
from grpcerrors_router.cli import tables, view
from grpcerrors_router.cli.view import Sort

NOW = time.time()


def draw(renderable: Any, width: int = 100) -> str:
    console = Console(width=width, highlight=False, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_tables_show_nodes_and_replicas() -> None:
    replicas = [
        ReplicaState(
            model="m", state="ready", generation=7, calls=3, last_used=NOW - 5, proved_at=NOW - 300,
            proof="answer",
        ),
        ReplicaState(model="n", state="evicting", generation=8),
    ]  # fmt: skip
    nodes = [
        NodeState(name="a", address="h:1", backend="x", slots=2, state="up", replicas=replicas),
        NodeState(name="h:4", address="h:4", backend="x", slots=1, state="unreachable"),
    ]
    lines = draw(tables.node_table(nodes)).splitlines()
    assert lines[1].split() == ["a", "h:1", "x", "up", "2/2"]
    assert lines[2].split() == ["h:4", "x", "unreachable", "0/1"], "the address is its name"
    rows = draw(tables.replica_table([(nodes[0], each) for each in replicas], NOW)).splitlines()
    assert rows[1].split() == ["m", "a", "7", "3", "5", "s", "5", "min,", "answer"]
    assert rows[2].split()[:5] == ["n", "(evicting)", "a", "8", "0"]
    assert "\x1b" not in "".join(lines + rows)


def test_tables_break_nothing_that_one_may_copy_at_80_columns() -> None:
    generation, name = 1_795_557_468_112, "transcriber-23616c"
    replica = ReplicaState(
        model="en-us", state="ready", generation=generation, calls=12, last_used=NOW - 70,
        proved_at=NOW - 70, proof="heartbeat",
    )  # fmt: skip
    node = NodeState(
        name=name, address="192.168.100.127:39559", backend="transcriber", slots=1,
        state="unreachable", replicas=[replica],
    )  # fmt: skip
    heal = Heal(
        at=NOW - 82, node=name, model="en-us", generation=generation, evidence="heartbeat",
        action="dropped", router="router-1df8e845", seconds=1.25,
    )  # fmt: skip
    entry = HistoryEntry(
        at=NOW - 82, kind="moved", node=name, generation=generation, seconds=3.5,
        why="it was on transcriber-9 before: transcriber-9, which holds it, is unreachable",
    )  # fmt: skip
    nodes = draw(tables.node_table([node]), 80).splitlines()
    rows = draw(tables.replica_table([(node, replica)], NOW), 80).splitlines()
    heals = draw(tables.heal_table([heal], NOW), 80).splitlines()
    past = draw(tables.history_table(GetHistoryReply(now=NOW, entries=[entry])), 80).splitlines()
    assert max(map(len, nodes + rows + heals + past)) <= 80
    assert nodes[1].split() == [name, node.address, "transcriber", "unreachable", "1/1"]
    assert {name, str(generation), "12"} <= set(rows[1].split())
    assert {str(generation), "heartbeat", "dropped", "1.25"} <= set(heals[1].split())
    assert {str(generation), "moved", "3.5"} <= set(past[1].split())


def test_tables_show_loads_pauses_refusals_and_routers() -> None:
    fleet = FleetState(
        now=NOW,
        registry=RegistryState(kind="sqlite", revision=7, since=NOW - 65, waiting_changes=2),
        routers=[RouterState(name="r1"), RouterState(name="r2")],
        loads=[
            LoadState(
                model="m", node="a", since=NOW - 300, owner="r1", hedge=True, victim="o",
                waiting=4, waiting_since=NOW - 30, usual_seconds=3,
            ),
            LoadState(model="n", since=NOW, why="it waits for a slot"),
        ],
        pauses=[
            PauseState(kind="back-off", node="a", model="p", until=NOW + 30, why="no file"),
            PauseState(kind="retry", model="q", until=NOW + 7200),
        ],
        refusals=[
            RefusalState(reason="OVERLOADED", model="m", count=7, last=NOW - 3, text="at its limit")
        ],
    )  # fmt: skip
    loads = draw(tables.load_table(fleet)).splitlines()
    assert "4 for 30 s" in loads[1]
    assert "a hedge, in place of o, usually 3 s" in draw(tables.load_table(fleet), 150)
    assert "5 min" in loads[1]
    assert "it waits for a slot" in loads[-1]
    pauses = draw(tables.pause_table(fleet)).splitlines()
    assert pauses[1].split() == ["back-off", "p", "a", "30", "s", "no", "file"]
    assert pauses[2].split() == ["retry", "q", "-", "2", "h"]
    refusals = draw(tables.refusal_table(fleet)).splitlines()
    assert refusals[1].split()[:3] == ["OVERLOADED", "m", "7"]
    line = draw(tables.router_line(fleet))
    assert "routers: r1, r2; registry: sqlite, revision 7, down for 65 s, 2 changes wait" in line
    assert "no router is running" in draw(tables.router_line(FleetState()))


def test_tables_show_what_a_model_lacks() -> None:
    models = [
        ModelState(model="m", backend="x", listed=True, wanted=2, present=2, calls=3),
        ModelState(model="n", backend="x", listed=True, wanted=1, waiting=4, why="no node"),
        ModelState(model="o", backend="x", present=1),
    ]
    lines = draw(tables.model_table(models)).splitlines()
    assert lines[1].split() == ["m", "x", "2/2", "3"]
    assert lines[2].split() == ["n", "x", "0/1", "0", "4", "requests", "wait;", "no", "node"]
    assert lines[3].endswith("models.toml does not list it")


def test_replicas_are_sorted_as_asked() -> None:
    def node(name: str, *replicas: tuple[str, int, float]) -> NodeState:
        return NodeState(
            name=name,
            calls=sum(calls for _, calls, _ in replicas),
            replicas=[
                ReplicaState(model=model, calls=calls, last_used=used)
                for model, calls, used in replicas
            ],
        )

    fleet = FleetState(nodes=[node("a", ("m", 1, 30.0), ("n", 5, 10.0)), node("b", ("m", 9, 20.0))])

    def order(sort: Sort) -> list[str]:
        return [f"{row[1].model}{row[0].name}" for row in view.rows(fleet, sort)]

    assert order(Sort.MODEL) == ["ma", "mb", "na"]
    assert order(Sort.NODE) == ["ma", "na", "mb"]
    assert order(Sort.CALLS) == ["mb", "na", "ma"]
    assert order(Sort.AGE) == ["na", "mb", "ma"]
    text = draw(view.as_text(fleet, Sort.CALLS))
    assert [line.split()[0] for line in text.splitlines() if line.startswith(("a ", "b "))] == [
        "b",
        "a",
    ]


def test_durations_are_short() -> None:
    spans = [tables.short(each) for each in (-3, 59, 119, 120, 7199, 7200, 172_800)]
    assert spans == ["0 s", "59 s", "119 s", "2 min", "119 min", "2 h", "2 d"]
    heal = Heal(at=NOW - 90_000)
    assert "(1 d 1 h ago)" in draw(tables.heal_table([heal], NOW))
    assert "nothing yet" in draw(tables.heal_table([], NOW))
