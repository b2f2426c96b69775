"""The commands `status`, `heals`, `models` and `history`, which look at a fleet."""

from __future__ import annotations

import contextlib
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from grpcerrors_router.cli import complete
from grpcerrors_router.cli.common import (
    AsJson,
    console,
    existing_registry,
    interruptible,
    print_json,
)
from grpcerrors_router.cli.gateway import Gateway, open_gateway, uses_gateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Group, RenderableType

    from grpcerrors_protocol import fleet_pb2
    from grpcerrors_router.cli.tables import Row

STATUS_EXAMPLES = """Examples:

\b
  grpcerrors-router status
  grpcerrors-router status --watch --sort calls
  grpcerrors-router status --json --gateway 10.0.0.1:50050
"""
HEALS_EXAMPLES = """Examples:

\b
  grpcerrors-router heals --limit 10
  grpcerrors-router heals --model tiny.en --node gpu-1
"""
MODELS_EXAMPLES = """Example:

\b
  grpcerrors-router models
"""
HISTORY_EXAMPLES = """Example:

\b
  grpcerrors-router history tiny.en
"""
TIMEOUT = 30.0
"""Seconds to wait for an answer of the gateway."""

Offline = Annotated[
    str | None,
    typer.Option(
        "--registry",
        metavar="URL",
        help="Read this registry instead, while no router runs.",
        show_default="ask the gateway",
    ),
]
Limit = Annotated[int, typer.Option(min=1, metavar="N", help="Show at most this many.")]


class Sort(StrEnum):
    """The order of the replicas."""

    MODEL = "model"
    NODE = "node"
    CALLS = "calls"
    AGE = "age"


@uses_gateway
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until interrupted.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Pause this long with --watch.")
    ] = 1.0,
    sort: Annotated[
        Sort,
        typer.Option(
            help="Sort the replicas by model, by node, by calls in flight (most first), or by the "
            "age of their last use (oldest first)."
        ),
    ] = Sort.MODEL,
    as_json: AsJson = False,
    registry: Offline = None,
    *,
    gateway: Gateway,
) -> None:
    """Show the state of the fleet.

    That is: what is wrong and what to do about it, the nodes, the replicas, and what is going on.
    """
    with _fleets(gateway, registry) as read:
        if not watch:
            _show(read(), as_json, sort)
            return
        screen = console()
        with interruptible():
            if as_json or not screen.is_terminal:
                while True:
                    _show(read(), as_json, sort)
                    time.sleep(interval)
            from rich.live import Live

            with Live(as_text(read(), sort), console=screen, screen=True) as live:
                while True:
                    time.sleep(interval)
                    live.update(as_text(read(), sort), refresh=True)


@uses_gateway
def heals(
    limit: Limit = 50,
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            autocompletion=complete.models,
            help="Show this model.",
            show_default="all",
        ),
    ] = "",
    node: Annotated[
        str,
        typer.Option(
            metavar="NODE",
            autocompletion=complete.nodes,
            help="Show this node.",
            show_default="all",
        ),
    ] = "",
    as_json: AsJson = False,
    registry: Offline = None,
    *,
    gateway: Gateway,
) -> None:
    """List the heal log, newest first.

    Each line shows when and where a replica was dropped, on which evidence, and how long the
    request that found out took until it was answered.
    """
    from grpcerrors_router.cli.tables import heal_table

    found = _heals(gateway, registry, limit, model, node)
    if as_json:
        print_json(found)
    else:
        console().print(heal_table(found.heals, found.now))


@uses_gateway
def models(as_json: AsJson = False, *, gateway: Gateway) -> None:
    """List the models and what they lack."""
    from grpcerrors_protocol.fleet_pb2 import ListModelsRequest
    from grpcerrors_protocol.fleet_pb2_grpc import OperatorStub
    from grpcerrors_router.cli.tables import model_table

    with open_gateway(gateway) as channel:
        reply = OperatorStub(channel).ListModels(ListModelsRequest(), timeout=TIMEOUT)
    if as_json:
        print_json(reply)
    else:
        console().print(model_table(reply.models))


@uses_gateway
def history(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", autocompletion=complete.models, help="Show this model."),
    ],
    limit: Limit = 50,
    as_json: AsJson = False,
    *,
    gateway: Gateway,
) -> None:
    """Show where a model was, and why it moved.

    Heals come from the registry; the rest is what the router that answers did since it started.
    """
    from grpcerrors_protocol.fleet_pb2 import GetHistoryRequest
    from grpcerrors_protocol.fleet_pb2_grpc import OperatorStub
    from grpcerrors_router.cli.tables import history_table, model_table

    with open_gateway(gateway) as channel:
        request = GetHistoryRequest(model=model, limit=limit)
        reply = OperatorStub(channel).GetHistory(request, timeout=TIMEOUT)
    if as_json:
        print_json(reply)
    else:
        screen = console()
        screen.print(model_table([reply.state]))
        screen.print()
        screen.print(history_table(reply))


@contextlib.contextmanager
def _fleets(gateway: Gateway, registry: str | None) -> Iterator[Callable[[], fleet_pb2.FleetState]]:
    """Yield a function that reads the state of the fleet."""
    if registry is not None:
        import asyncio

        yield lambda: asyncio.run(_read_offline(registry))
        return
    from grpcerrors_protocol.fleet_pb2 import GetFleetRequest
    from grpcerrors_protocol.fleet_pb2_grpc import OperatorStub

    with open_gateway(gateway) as channel:
        stub = OperatorStub(channel)
        yield lambda: stub.GetFleet(GetFleetRequest(), timeout=TIMEOUT)


async def _read_offline(url: str) -> fleet_pb2.FleetState:
    """Return what a router would know that has just read the registry."""
    from grpcerrors_router.router import SmartRouter

    async with existing_registry(url) as registry:
        router = SmartRouter(registry, {})
        try:
            await router.watcher.relist()
            state = await router.state.fleet()
        finally:
            await router.close()
    state.router = ""
    return state


def _heals(
    gateway: Gateway, registry: str | None, limit: int, model: str, node: str
) -> fleet_pb2.ListHealsReply:
    from grpcerrors_protocol.fleet_pb2 import Heal, ListHealsReply, ListHealsRequest
    from grpcerrors_protocol.fleet_pb2_grpc import OperatorStub

    if registry is None:
        with open_gateway(gateway) as channel:
            request = ListHealsRequest(limit=limit, model=model, node=node)
            reply: ListHealsReply = OperatorStub(channel).ListHeals(request, timeout=TIMEOUT)
            return reply
    import asyncio
    from dataclasses import asdict

    async def read() -> ListHealsReply:
        async with existing_registry(registry) as opened:
            found = await opened.heals(limit, model=model, node=node)
        return ListHealsReply(now=time.time(), heals=[Heal(**asdict(heal)) for heal in found])

    return asyncio.run(read())


def _show(fleet: fleet_pb2.FleetState, as_json: bool, sort: Sort) -> None:
    if as_json:
        print_json(fleet)
    else:
        console().print(as_text(fleet, sort))


def as_text(fleet: fleet_pb2.FleetState, sort: Sort) -> Group:
    """Return all that `status` shows."""
    from rich.console import Group

    from grpcerrors_router.cli import tables
    from grpcerrors_router.state.problems import summary

    nodes = list(fleet.nodes)
    if sort is Sort.CALLS:
        nodes.sort(key=lambda node: -node.calls)
    lines: list[RenderableType] = [
        tables.router_line(fleet),
        summary(fleet),
        *tables.problem_lines(fleet.problems),
        "",
        tables.node_table(nodes)
        if nodes
        else "no nodes yet; start one with --router, or use add-node",
    ]
    for table in (
        tables.replica_table(rows(fleet, sort), fleet.now),
        tables.load_table(fleet),
        tables.pause_table(fleet),
        tables.refusal_table(fleet),
    ):
        if table.row_count:
            lines += ["", table]
    return Group(*lines, "", tables.heal_table(fleet.heals[:5], fleet.now))


def rows(fleet: fleet_pb2.FleetState, sort: Sort) -> list[Row]:
    """Return the replicas with their nodes, sorted."""
    found = [(node, replica) for node in fleet.nodes for replica in node.replicas]
    orders: dict[Sort, Callable[[Row], tuple[float | str, ...]]] = {
        Sort.MODEL: lambda row: (row[1].model, row[0].name),
        Sort.NODE: lambda row: (row[0].name, row[1].model),
        Sort.CALLS: lambda row: (-row[1].calls, row[1].model, row[0].name),
        Sort.AGE: lambda row: (row[1].last_used, row[1].model, row[0].name),
    }
    return sorted(found, key=orders[sort])
