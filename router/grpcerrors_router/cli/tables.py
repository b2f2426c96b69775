"""The tables that commands print: useful at 80 columns, and at most 100 wide."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from grpcerrors_protocol.fleet_pb2 import (
        FleetState,
        GetHistoryReply,
        Heal,
        ModelState,
        NodeState,
        Problem,
        ReplicaState,
    )

_UNBROKEN = frozenset(
    {"ADDRESS", "STATE", "SLOTS", "GEN", "CALLS", "USED", "EVIDENCE", "ROW", "REASON", "TOOK",
     "REPLICAS", "SINCE", "LEFT", "WHAT", "WHEN"}
)  # fmt: skip
_COLOURS = {
    "up": "green", "unreachable": "red", "silent": "red", "draining": "yellow", "busy": "yellow",
    "refusing": "red",
    "error": "red", "warning": "yellow", "note": "dim",
}  # fmt: skip

Row = tuple["NodeState", "ReplicaState"]


def router_line(fleet: FleetState) -> Text:
    """Return a line with the routers and the state of the registry."""
    names = ", ".join(router.name for router in fleet.routers) or "no router is running"
    registry = fleet.registry
    line = Text(f"routers: {names}; registry: {registry.kind}, revision {registry.revision}")
    if not registry.up:
        line.append(f", down for {short(fleet.now - registry.since)}", "red")
        if registry.waiting_changes:
            line.append(f", {registry.waiting_changes} changes wait")
    return line


def problem_lines(found: Iterable[Problem]) -> list[Text]:
    """Return what is wrong and what to do about it."""
    lines = []
    for problem in found:
        line = Text("- ", _COLOURS.get(problem.severity, ""))
        line.append(problem.what)
        line.append(f" {problem.cure}", "dim")
        lines.append(line)
    return lines


def node_table(nodes: Sequence[NodeState]) -> Table:
    """Return a table of the nodes."""
    table = _table("NODE", "ADDRESS", "BACKEND", "STATE", "SLOTS")
    for node in nodes:
        address = "" if node.address == node.name else node.address
        slots = f"{len(node.replicas)}/{node.slots}"
        table.add_row(node.name, address, node.backend, _coloured(node.state), slots)
    return table


def replica_table(rows: Iterable[Row], now: float) -> Table:
    """Return a table of replicas with their nodes."""
    table = _table("MODEL", "NODE", "GEN", "CALLS", "USED", "PROVED")
    for node, replica in rows:
        state = "" if replica.state == "ready" else f" ({replica.state})"
        table.add_row(
            replica.model + state,
            node.name,
            str(replica.generation),
            str(replica.calls),
            _ago(now, replica.last_used),
            f"{_ago(now, replica.proved_at)}, {replica.proof}",
        )
    return table


def load_table(fleet: FleetState) -> Table:
    """Return a table of the loads that run or wait."""
    table = _table("LOADING", "NODE", "SINCE", "BY", "WAITING", "")
    for load in fleet.loads:
        waiting = "-"
        if load.waiting:
            waiting = f"{load.waiting} for {short(fleet.now - load.waiting_since)}"
        more = [
            load.why,
            "a hedge" if load.hedge else "",
            f"in place of {load.victim}" if load.victim else "",
            f"usually {short(load.usual_seconds)}" if load.usual_seconds else "",
        ]
        table.add_row(
            load.model,
            load.node or "-",
            short(fleet.now - load.since),
            load.owner or "-",
            waiting,
            ", ".join(filter(None, more)),
        )
    return table


def pause_table(fleet: FleetState) -> Table:
    """Return a table of the quarantines, back-offs and other pauses."""
    table = _table("PAUSED", "MODEL", "NODE", "LEFT", "WHY")
    for pause in fleet.pauses:
        left = short(pause.until - fleet.now)
        table.add_row(pause.kind, pause.model, pause.node or "-", left, pause.why)
    return table


def refusal_table(fleet: FleetState) -> Table:
    """Return a table of the refusals of the last minutes."""
    table = _table("REFUSED", "MODEL", "COUNT", "LAST", "TEXT")
    for each in fleet.refusals:
        last = f"{short(fleet.now - each.last)} ago"
        table.add_row(each.reason, each.model or "-", str(each.count), last, each.text)
    return table


def heal_table(heals: Sequence[Heal], now: float) -> Table:
    """Return the heal log as a table."""
    table = _table("HEALED", "NODE", "MODEL", "GEN", "EVIDENCE", "ROW", "TOOK")
    table.columns[0].min_width = len("12-31 23:59:59")
    for heal in heals:
        table.add_row(
            f"{_moment(heal.at)} ({_span(now - heal.at)} ago)",
            *(heal.node, heal.model, str(heal.generation), heal.evidence, heal.action),
            f"{heal.seconds:.2f} s" if heal.seconds else "-",
        )
    if not heals:
        table.add_row("nothing yet")
    return table


def model_table(models: Iterable[ModelState]) -> Table:
    """Return a table of the models, and of what each lacks."""
    table = _table("MODEL", "BACKEND", "REPLICAS", "CALLS", "WHY")
    for model in models:
        replicas = f"{model.present}/{model.wanted}"
        why = model.why if model.listed else "models.toml does not list it"
        if model.waiting:
            why = f"{model.waiting} requests wait; {why}"
        colour = "red" if model.present < model.wanted and model.waiting else ""
        table.add_row(model.model, model.backend, Text(replicas, colour), str(model.calls), why)
    return table


def history_table(reply: GetHistoryReply) -> Table:
    """Return what happened to a model."""
    table = _table("WHEN", "WHAT", "NODE", "GEN", "TOOK", "WHY")
    for entry in reply.entries:
        table.add_row(
            _moment(entry.at),
            *(entry.kind, entry.node, str(entry.generation)),
            f"{entry.seconds:.1f} s" if entry.seconds else "-",
            entry.why,
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in _UNBROKEN)
    return table


def _coloured(word: str) -> Text:
    return Text(word, _COLOURS.get(word, ""))


def _moment(at: float) -> str:
    return time.strftime("%m-%d %H:%M:%S", time.localtime(at))


def _ago(now: float, at: float) -> str:
    return short(now - at) if at else "-"


def short(seconds: float) -> str:
    """Return a duration in its largest unit."""
    left = max(0, round(seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if left >= 2 * size:
            return f"{left // size} {unit}"
    return f"{left} s"


def _span(seconds: float) -> str:
    """Return a duration in its two largest units."""
    left = max(0, round(seconds))
    for size, unit, smaller_size, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if left >= size:
            return f"{left // size} {unit} {left % size // smaller_size} {smaller}"
    return f"{left // 60} min {left % 60} s" if left >= 60 else f"{left} s"  # noqa: PLR2004
