"""The tables that `status` and `heals` print, at most 100 columns wide."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from grpcerrors_router.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grpcerrors_router.entities import Heal, Load, Node, RouterRow, Snapshot

_FRESH_FOR = Settings().fresh_for
_UNBROKEN = frozenset({"ADDRESS", "STATE", "SLOTS", "GEN", "EVIDENCE", "ROW"})


def router_line(routers: Sequence[RouterRow], revision: int) -> Text:
    """Return a line with the live routers and the registry's revision."""
    names = ", ".join(router.name for router in routers) or "no router is running"
    return Text(f"routers: {names}; registry revision {revision}")


def node_table(snapshot: Snapshot, now: float, answering: Mapping[str, bool]) -> Table:
    """Return a table of the nodes. `answering` says by address whether a foreign node answers."""
    table = _table("NODE", "ADDRESS", "BACKEND", "STATE", "SLOTS")
    for view in sorted(snapshot.nodes, key=lambda each: each.name):
        node = view.node
        if node is not None:
            state = _state(node, now, answering.get(node.address))
            slots = f"{len(view.replicas)}/{node.slots}"
            table.add_row(node.name, node.address, node.backend, state, slots)
    return table


def replica_table(snapshot: Snapshot, now: float) -> Table:
    """Return a table of the replicas."""
    table = _table("MODEL", "NODE", "GEN", "CALLS", "LAST USED")
    found = [(replica, view) for view in snapshot.nodes for replica in view.replicas]
    for replica, view in sorted(found, key=lambda each: (each[0].model, each[0].node)):
        table.add_row(
            replica.model + (" (evicting)" if view.evicting(replica) else ""),
            replica.node,
            str(replica.generation),
            str(replica.in_flight),
            f"{_span(now - replica.last_used)} ago" if replica.last_used else "-",
        )
    return table


def load_table(snapshot: Snapshot, now: float) -> Table:
    """Return a table of the load jobs: those that run, and those that failed and back off."""
    table = _table("LOADING", "NODE", "STATE", "SINCE", "BY", "WHAT THE NODE SAID")
    table.columns[2].no_wrap = False  # it may say when the next try is
    for view in snapshot.nodes:
        for load in view.loads:
            if load.state == "failed" and not load.backing_off(now):
                continue
            since = _span(now - load.started_at)
            row = (load.model, view.name, _load_state(load, now), since, load.owner, load.message)
            table.add_row(*row)
    return table


def heal_table(heals: Sequence[Heal], now: float) -> Table:
    """Return the heal log as a table."""
    table = _table("HEALED", "NODE", "MODEL", "GEN", "EVIDENCE", "ROW", "ROUTER")
    table.columns[0].min_width = len("12-31 23:59:59")
    for heal in heals:
        when = time.strftime("%m-%d %H:%M:%S", time.localtime(heal.at))
        table.add_row(
            f"{when} ({_span(now - heal.at)} ago)",
            *(heal.node, heal.model, str(heal.generation), heal.evidence, heal.action, heal.router),
        )
    if not heals:
        table.add_row("nothing yet")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in _UNBROKEN)
    return table


def _state(node: Node, now: float, answers: bool | None) -> Text:
    if node.draining:
        return Text("draining", "yellow")
    if node.foreign:
        return Text("up (asked)", "green") if answers else Text("unreachable", "red")
    silence = now - node.last_seen
    if silence > _FRESH_FOR:
        return Text(f"silent {_span(silence)}", "red")
    return Text("up", "green")


def _load_state(load: Load, now: float) -> Text:
    if load.running(now):
        return Text("loading", "cyan")
    if load.backing_off(now):
        return Text(f"failed, next try in {_span(load.retry_at - now)}", "red")
    return Text("abandoned", "red")


def _span(seconds: float) -> str:
    """Return a duration in its two largest units."""
    left = max(0, round(seconds))
    for size, unit, smaller_size, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if left >= size:
            return f"{left // size} {unit} {left % size // smaller_size} {smaller}"
    return f"{left // 60} min {left % 60} s" if left >= 60 else f"{left} s"  # noqa: PLR2004
