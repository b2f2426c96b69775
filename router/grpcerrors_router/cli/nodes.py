"""The commands `add-node`, `remove-node` and `drain`, which change the registry."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from grpcerrors_router.cli.common import DEFAULT_REGISTRY, Registry, existing_registry
from grpcerrors_router.validation import check_node

if TYPE_CHECKING:
    from grpcerrors_router.registry.registry import NodeRegistry

ADD_EXAMPLES = """Example:

\b
  grpcerrors-router add-node 10.0.0.7:50051 --backend llama-cpp --name gpu-1
"""
REMOVE_EXAMPLES = """Example:

\b
  grpcerrors-router remove-node gpu-1
"""
DRAIN_EXAMPLES = """Examples:

\b
  grpcerrors-router drain gpu-1
  grpcerrors-router drain gpu-1 --off
"""

Node = Annotated[str, typer.Argument(metavar="NODE", help="Use this node, as status names it.")]


def add_node(
    address: Annotated[
        str, typer.Argument(metavar="HOST:PORT", help="Add the backend at this address.")
    ],
    backend: Annotated[
        str, typer.Option(metavar="TYPE", help="Load models of this backend type on the node.")
    ],
    slots: Annotated[
        int, typer.Option(min=1, metavar="N", help="Load up to this many models at a time.")
    ] = 1,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Give the node this name.", show_default="the address"),
    ] = None,
    registry: Registry = DEFAULT_REGISTRY,
) -> None:
    """Add a backend that does not register.

    The backends of LocalAI, for example, do not. The router probes such a node itself.
    """
    from grpcerrors_router.cli.ask import answering, is_router

    check_node(name or address, address, backend, slots)

    answers = answering([address])[address]
    if answers and is_router(address):
        raise ValueError(f"{address} is a router, which cannot be a node of another router")

    async def work() -> str:
        async with existing_registry(registry) as opened:
            return (await opened.add_node(address, backend, name=name, slots=slots)).name

    typer.echo(f"added {asyncio.run(work())} ({backend}, {slots} slot{'s' * (slots > 1)})")
    if not answers:
        typer.echo(
            f"Warning: nothing answers at {address} yet; the router will use the node once it does",
            err=True,
        )


def remove_node(node: Node, registry: Registry = DEFAULT_REGISTRY) -> None:
    """Remove a node and its replicas.

    A node that still sends heartbeats registers again.
    """

    async def work() -> None:
        async with existing_registry(registry) as opened:
            await _check_known(opened, node)
            await opened.remove_node(node)

    asyncio.run(work())
    typer.echo(f"removed {node}")


def drain(
    node: Node,
    off: Annotated[bool, typer.Option("--off", help="Send requests to the node again.")] = False,
    registry: Registry = DEFAULT_REGISTRY,
) -> None:
    """Stop sending requests to a node.

    Calls in flight run to their end. No model is loaded on the node meanwhile.
    """

    async def work() -> None:
        async with existing_registry(registry) as opened:
            await _check_known(opened, node)
            await opened.set_draining(node, not off)

    asyncio.run(work())
    typer.echo(f"{node} takes requests again" if off else f"draining {node}")


async def _check_known(registry: NodeRegistry, node: str) -> None:
    from grpcerrors_router.closest import closest

    names = [view.name for view in (await registry.snapshot()).nodes]
    if node not in names:
        hint = closest(node, names) if names else "there are no nodes"
        raise ValueError(f'no node "{node}"; {hint}')
