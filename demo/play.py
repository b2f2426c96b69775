"""The fleet of `make play`, which runs until Ctrl-C."""

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
    """Start the fleet, print its addresses and commands to paste, then wait forever."""
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
    screen.command(f"{client} transcribe {gateway.address}", f"transcribe a recording with {MODEL}")
    gateway_option = f"--gateway {gateway.address}"
    screen.command(f"{router} status {gateway_option}", "show the nodes and their models")
    screen.command(
        f"{client} unload {ears}", "unload the model of ears-1 without telling the router"
    )
    screen.command(
        f"{router} heals {gateway_option}", "show the heals, after another transcription"
    )
    await asyncio.Event().wait()
