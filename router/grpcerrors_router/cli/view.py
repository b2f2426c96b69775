"""`status`, `heals`: what the registry knows, for people and for programs."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live

from grpcerrors_router.cli.common import (
    DEFAULT_REGISTRY,
    AsJson,
    Registry,
    console,
    existing_registry,
)
from grpcerrors_router.cli.tables import heal_table, in_flight, load_table, node_table, router_line

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from grpcerrors_router.entities import Heal, RouterRow, Snapshot, Usage
    from grpcerrors_router.registry.registry import NodeRegistry


@dataclass(frozen=True)
class Fleet:
    """All that `status` shows, read at one time."""

    at: float
    snapshot: Snapshot
    usage: list[Usage]
    routers: list[RouterRow]
    heals: list[Heal]


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Go on until interrupted.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, metavar="SECONDS")] = 1.0,
    as_json: AsJson = False,
    registry: Registry = DEFAULT_REGISTRY,
) -> None:
    """Show nodes, replicas, generations, calls in flight and the last heals."""
    asyncio.run(_status(registry, as_json, interval if watch else None))


def heals(
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
    as_json: AsJson = False,
    registry: Registry = DEFAULT_REGISTRY,
) -> None:
    """Show the heal log: when, where, by which evidence, and what the router did."""

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
        with Live(_as_text(await _read(registry)), console=screen, screen=True) as live:
            while True:
                await asyncio.sleep(interval)
                live.update(_as_text(await _read(registry)), refresh=True)


async def _read(registry: NodeRegistry) -> Fleet:
    return Fleet(
        time.time(),
        await registry.snapshot(),
        await registry.usage(),
        await registry.routers(),
        await registry.heals(5),
    )


def _as_text(fleet: Fleet) -> Group:
    parts: list[Table | Text | str] = [router_line(fleet.routers, fleet.snapshot.revision)]
    nodes = node_table(fleet.snapshot, fleet.usage, fleet.at)
    parts += [
        "",
        nodes if nodes.row_count else "no nodes yet; start grpcerrors-backend, or add-node",
    ]
    loads = load_table(fleet.snapshot, fleet.at)
    if loads.row_count:
        parts += ["", loads]
    parts += ["", heal_table(fleet.heals, fleet.at)]
    return Group(*parts)


def _as_data(fleet: Fleet) -> dict[str, Any]:
    return {
        "at": fleet.at,
        "revision": fleet.snapshot.revision,
        "nodes": [
            {
                **asdict(view.node),
                "replicas": [
                    {**asdict(replica), "in_flight": in_flight(fleet.usage, replica)}
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
