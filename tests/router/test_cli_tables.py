"""The tables that the command line prints."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console

from grpcerrors_router.cli import tables
from grpcerrors_router.entities import (
    Heal,
    Load,
    Node,
    NodeView,
    Replica,
    RouterRow,
    Snapshot,
)

NOW = time.time()


def draw(renderable: Any, width: int = 100) -> str:
    console = Console(width=width, highlight=False, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_tables_show_the_states_of_nodes() -> None:
    def view(node: Node, *replicas: Replica) -> NodeView:
        jobs = tuple(
            Load(node.name, "o", 9, "r", "running", NOW, NOW + 9, "n", victim_generation=8)
            for replica in replicas
            if replica.model == "n"
        )
        return NodeView(1, node.name, node, replicas, jobs, NOW)

    snapshot = Snapshot(
        9,
        (
            view(
                Node("a", "h:1", "x", 2, last_seen=NOW),
                Replica("a", "m", 7, 7, in_flight=3, last_used=NOW - 5),
                Replica("a", "n", 8, 8),
            ),
            view(Node("b", "h:2", "x", last_seen=NOW - 75)),
            view(Node("c", "h:3", "x", draining=True, last_seen=NOW)),
            view(Node("h:4", "h:4", "x", foreign=True)),
            view(Node("x@h:5", "h:5", "x", foreign=True)),
            NodeView(2, "gone", None),
        ),
    )
    lines = draw(tables.node_table(snapshot, NOW, {"h:4": True, "h:5": False})).splitlines()
    assert len(lines) == 6
    assert lines[1].split() == ["a", "h:1", "x", "up", "2/2"]
    assert "silent 1 min 15 s" in lines[2]
    assert "draining" in lines[3]
    assert lines[4].split() == ["h:4", "h:4", "x", "up", "(asked)", "0/1"]
    assert "unreachable" in lines[5]
    replicas = draw(tables.replica_table(snapshot, NOW)).splitlines()
    assert replicas[1].split() == ["m", "a", "7", "3", "5", "s", "ago"]
    assert replicas[2].split() == ["n", "(evicting)", "a", "8", "0", "-"]
    assert "\x1b" not in "".join(lines + replicas)


def test_tables_break_nothing_that_one_may_copy_at_80_columns() -> None:
    generation, name = 1_795_557_468_112, "transcriber-23616c"
    node = Node(name, "192.168.100.127:39559", "transcriber", foreign=True)
    view = NodeView(1, name, node, (Replica(name, "en-us", generation, 1, last_used=NOW),), (), NOW)
    snapshot = Snapshot(9, (view,))
    nodes = draw(tables.node_table(snapshot, NOW, {}), 80).splitlines()
    replicas = draw(tables.replica_table(snapshot, NOW), 80).splitlines()
    heal = Heal(NOW - 82, name, "en-us", generation, "heartbeat", "dropped", "router-1df8e845")
    heals = draw(tables.heal_table([heal], NOW), 80).splitlines()
    assert max(map(len, nodes + replicas + heals)) <= 80
    assert nodes[1].split() == [name, node.address, "transcriber", "unreachable", "1/1"]
    assert {name, str(generation)} <= set(replicas[1].split())
    assert {str(generation), "heartbeat", "dropped"} <= set(heals[1].split())


def test_tables_show_loads_heals_and_routers() -> None:
    node = Node("a", "h:1", "x")
    running = Load("a", "m", 3, "r1", "running", NOW - 65, NOW + 10)
    failed = Load("a", "n", 4, "r1", "failed", NOW - 65, 0, retry_at=NOW + 30, message="no file")
    left = Load("a", "o", 5, "r0", "running", NOW - 65, NOW - 1)
    past = Load("a", "p", 6, "r1", "failed", NOW - 65, 0, retry_at=NOW - 1, message="out of memory")
    jobs = (running, failed, left, past)
    text = draw(tables.load_table(Snapshot(1, (NodeView(1, "a", node, (), jobs),)), NOW))
    assert "loading" in text
    assert "1 min 5 s" in text
    assert "failed, next try in 30 s" in text
    assert "no file" in text
    assert "abandoned" in text
    assert "out of memory" not in text, "its back-off has ended"
    heal = Heal(NOW - 90_000, "a", "m", 3, "code", "dropped", "r1")
    assert "(1 d 1 h ago)" in draw(tables.heal_table([heal], NOW))
    assert "routers: r1, r2" in draw(
        tables.router_line([RouterRow("r1", 1, NOW), RouterRow("r2", 1, NOW)], 1)
    )
    assert "no router is running" in draw(tables.router_line([], 1))
