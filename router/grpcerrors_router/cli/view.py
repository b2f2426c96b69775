"""The commands `status` and `heals`, which print the registry as text or JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grpcerrors_router.cli.common import (
    DEFAULT_REGISTRY,
    AsJson,
    Registry,
    console,
    existing_registry,
)

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from grpcerrors_router.entities import Heal, RouterRow, Snapshot
    from grpcerrors_router.registry.registry import NodeRegistry

STATUS_EXAMPLES = """Examples:

\b
  grpcerrors-router status
  grpcerrors-router status --watch --interval 5
  grpcerrors-router status --json
"""
HEALS_EXAMPLES = """Example:

\b
  grpcerrors-router heals --limit 10
"""


@dataclass(frozen=True)
class Fleet:
    """All that `status` shows. `answering` says by address whether a foreign node answers."""

    snapshot: Snapshot
    routers: list[RouterRow]
    heals: list[Heal]
    answering: dict[str, bool]

    @property
    def at(self) -> float:
        """The time of the snapshot: Unix seconds by the registry's clock."""
        return self.snapshot.now


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until interrupted.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Pause this long with --watch.")
    ] = 1.0,
    as_json: AsJson = False,
    registry: Registry = DEFAULT_REGISTRY,
) -> None:
    """Show nodes, replicas, loads and heals.

    Nodes that do not register are contacted to see whether they answer.
    """
    asyncio.run(_status(registry, as_json, interval if watch else None))


def heals(
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most this many.")] = 50,
    as_json: AsJson = False,
    registry: Registry = DEFAULT_REGISTRY,
) -> None:
    """List the heal log, newest first.

    Each line shows when and where a replica was dropped, and on which evidence.
    """
    from grpcerrors_router.cli.tables import heal_table

    async def work() -> list[Heal]:
        async with existing_registry(registry) as opened:
            return await opened.heals(limit)

    found = asyncio.run(work())
    if as_json:
        _print_json([asdict(heal) for heal in found])
    else:
        console().print(heal_table(found, time.time()))


async def _status(url: str, as_json: bool, interval: float | None) -> None:
    async with existing_registry(url) as registry:
        screen = console()
        if interval is None or as_json or not screen.is_terminal:
            while True:
                fleet = await _read(registry)
                if as_json:
                    _print_json(_as_data(fleet))
                else:
                    screen.print(_as_text(fleet))
                if interval is None:
                    return
                await asyncio.sleep(interval)
        from rich.live import Live

        with Live(_as_text(await _read(registry)), console=screen, screen=True) as live:
            while True:
                await asyncio.sleep(interval)
                live.update(_as_text(await _read(registry)), refresh=True)


async def _read(registry: NodeRegistry) -> Fleet:
    snapshot = await registry.snapshot()
    foreign = [view.node.address for view in snapshot.nodes if view.node and view.node.foreign]
    asked: dict[str, bool] = {}
    if foreign:
        from grpcerrors_router.cli.ask import answering

        asked = await asyncio.to_thread(answering, foreign)
    return Fleet(
        snapshot,
        await registry.routers(),
        await registry.heals(5),
        asked,
    )


def _as_text(fleet: Fleet) -> Group:
    from rich.console import Group

    from grpcerrors_router.cli.tables import (
        heal_table,
        load_table,
        node_table,
        replica_table,
        router_line,
    )

    parts: list[Table | Text | str] = [router_line(fleet.routers, fleet.snapshot.revision)]
    nodes = node_table(fleet.snapshot, fleet.at, fleet.answering)
    parts += [
        "",
        nodes if nodes.row_count else "no nodes yet; start one with --router, or use add-node",
    ]
    for table in (replica_table(fleet.snapshot, fleet.at), load_table(fleet.snapshot, fleet.at)):
        if table.row_count:
            parts += ["", table]
    parts += ["", heal_table(fleet.heals, fleet.at)]
    return Group(*parts)


def _as_data(fleet: Fleet) -> dict[str, Any]:
    return {
        "at": fleet.at,
        "revision": fleet.snapshot.revision,
        "nodes": [
            {
                **asdict(view.node),
                "answering": fleet.answering.get(view.node.address),
                "replicas": [
                    {**asdict(replica), "evicting": view.evicting(replica)}
                    for replica in view.replicas
                ],
                "loads": [asdict(load) for load in view.loads],
            }
            for view in fleet.snapshot.nodes
            if view.node is not None
        ],
        "routers": [asdict(router) for router in fleet.routers],
        "heals": [asdict(heal) for heal in fleet.heals],
    }


def _print_json(data: Any) -> None:
    json.dump(data, sys.stdout, indent=None)
    sys.stdout.write("\n")
    sys.stdout.flush()
