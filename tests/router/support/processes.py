"""The router and its nodes as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from grpcerrors_router.registry.registry import NodeRegistry
from tests.router.conftest import HANG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

ROOT = Path(__file__).parents[3]
START = 60.0


@dataclass
class Process:
    """A process that has printed that it is ready, and its addresses."""

    process: asyncio.subprocess.Process
    addresses: list[str]

    @property
    def address(self) -> str:
        return self.addresses[0]

    def pause(self) -> None:
        """Send SIGSTOP: its sockets stay open, but it does not answer."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), START)


class Fleet:
    """Starts processes in one folder, with one registry and one models.toml."""

    def __init__(self, folder: Path, models: str, url: str = "") -> None:
        self.folder = folder
        self.url = url or f"sqlite:///{folder / 'router.db'}"
        self.registry = NodeRegistry(self.url, timeout=HANG)
        self.started: list[Process] = []
        (folder / "models.toml").write_text(models)

    async def gateway(self, listen: str = "127.0.0.1:0", *more: str) -> Process:
        return await self.start(
            *("grpcerrors_router", "serve", "--listen", listen, "--registry", self.url),
            *("--models", str(self.folder / "models.toml"), "--metrics", "127.0.0.1:0", *more),
        )

    async def node(
        self,
        router: str,
        name: str,
        listen: str = "127.0.0.1:0",
        *more: str,
        backend: str = "echo",
    ) -> Process:
        started = await self.start(
            *("grpcerrors_backends", backend, "--listen", listen, "--router", router),
            *("--node-name", name, "--files", str(self.folder), *more),
        )
        async with asyncio.timeout(START):
            while name not in [view.name for view in (await self.registry.snapshot()).nodes]:
                await asyncio.sleep(0.05)
        return started

    async def start(self, *arguments: str) -> Process:
        with (self.folder / f"{len(self.started)}-{arguments[0]}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *arguments),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
            )
        running = Process(process, [])
        self.started.append(running)
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), START)
        running.addresses = re.findall(r"127\.0\.0\.1:\d+", line.decode())
        assert running.addresses, (self.folder / log.name).read_text()
        return running

    async def holders(self, model: str) -> dict[str, int]:
        """Return the generation of `model` on each node that the registry lists it for."""
        return {
            replica.node: replica.generation
            for view in (await self.registry.snapshot()).nodes
            for replica in view.replicas
            if replica.model == model
        }

    def ledger(self) -> Sequence[str]:
        """Return the request of every call that any node has begun to execute."""
        file = self.folder / "ledger"
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line)["request"] for line in lines]


@contextlib.asynccontextmanager
async def fleet(folder: Path, models: str, url: str = "") -> AsyncIterator[Fleet]:
    """Yield a world; kill the processes that still run at the end."""
    made = Fleet(folder, models, url)
    try:
        async with made.registry:
            yield made
    finally:
        for running in made.started:
            if running.process.returncode is None:
                await running.kill()
