"""`make play`: the fleet runs until Ctrl-C, with commands to try on it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from demo.fleet import MODEL

if TYPE_CHECKING:
    from demo.fleet import Fleet
    from demo.screen import Screen


async def play(fleet: Fleet, screen: Screen) -> None:
    """Start the fleet, print its addresses and commands to paste elsewhere, wait for ever."""
    registry = f"sqlite:///{fleet.folder}/router.db"
    screen.title("Starting three nodes and a gateway")
    fleet.start_nodes()
    await fleet.introduce(registry)
    gateway = fleet.start_gateway("gateway", "retry", registry)
    for name, node in fleet.nodes.items():
        screen.say(f"{name}: {node.address}")
    screen.say(f"gateway: {gateway.address}, metrics: http://{gateway.addresses[1]}/metrics")
    screen.title("Running until Ctrl-C. In another terminal, in this folder, try:")
    folder = Path(sys.executable).parent
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    client = f"{folder}/python -m demo.client"
    router = f"{folder}/grpcerrors-router"
    ears = fleet.nodes["ears-1"].address
    screen.command(f"{client} transcribe {gateway.address}", f"transcribes a recording by {MODEL}")
    screen.command(f"{router} status --registry {registry}", "shows the nodes and their models")
    screen.command(f"{client} unload {ears}", "frees the model of ears-1 behind the router's back")
    screen.command(f"{router} heals --registry {registry}", "shows the heals, after a transcribe")
    await asyncio.Event().wait()
