"""`add-node`, `remove-node`, `drain`: change which nodes there are, through the registry."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from grpcerrors_router.cli.common import (
    DEFAULT_REGISTRY,
    Registry,
    existing_registry,
    split_address,
)
from grpcerrors_router.config.options import closest

if TYPE_CHECKING:
    from grpcerrors_router.registry.registry import NodeRegistry

Node = Annotated[str, typer.Argument(metavar="NODE", help="Its name, as status shows it.")]


def add_node(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where the backend serves.")],
    backend: Annotated[str, typer.Option(metavar="TYPE", help="As models.toml names it.")],
    slots: Annotated[int, typer.Option(min=1, help="How many models it can hold.")] = 1,
    name: Annotated[str | None, typer.Option(help="Its name; the address unless given.")] = None,
    registry: Registry = DEFAULT_REGISTRY,
) -> None:
    """Add a backend that registers with nobody, such as one of LocalAI's."""
    split_address(address, "the address")

    async def work() -> str:
        async with existing_registry(registry) as opened:
            return (await opened.add_node(address, backend, name=name, slots=slots)).name

    typer.echo(f"added {asyncio.run(work())} ({backend}, {slots} slot{'s' * (slots > 1)})")


def remove_node(node: Node, registry: Registry = DEFAULT_REGISTRY) -> None:
    """Forget a node and what it holds; one that still sends heartbeats comes back."""

    async def work() -> None:
        async with existing_registry(registry) as opened:
            await _known(opened, node)
            await opened.remove_node(node)

    asyncio.run(work())
    typer.echo(f"removed {node}")


def drain(
    node: Node,
    off: Annotated[bool, typer.Option("--off", help="Take new requests again.")] = False,
    registry: Registry = DEFAULT_REGISTRY,
) -> None:
    """Send a node no new requests and no loads; those in flight go on."""

    async def work() -> None:
        async with existing_registry(registry) as opened:
            await _known(opened, node)
            await opened.set_draining(node, not off)

    asyncio.run(work())
    typer.echo(f"{node} takes requests again" if off else f"draining {node}")


async def _known(registry: NodeRegistry, node: str) -> None:
    names = [view.name for view in (await registry.snapshot()).nodes]
    if node not in names:
        hint = closest(node, names) if names else "there are no nodes"
        raise ValueError(f'no node "{node}"; {hint}')
