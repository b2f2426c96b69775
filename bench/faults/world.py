"""The routers and nodes of one scenario, as processes, with their files and metrics."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import tempfile
import urllib.request
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bench.faults.report import Result

START = 60.0  # seconds in which a process must be ready
LOCAL = "127.0.0.1:0"


class DidNotStart(RuntimeError):
    """A process did not start. The text is its log."""


@dataclass
class Process:
    """A running program, its addresses and its log."""

    process: asyncio.subprocess.Process
    log: Path
    addresses: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.addresses[0]

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def pause(self) -> None:
        """Send SIGSTOP: its sockets stay open, but it does not answer."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Send SIGKILL."""
        if self.running:
            self.process.kill()
        await self.process.wait()

    def resident(self) -> float:
        """Return its resident memory in MiB."""
        return float(psutil.Process(self.process.pid).memory_info().rss / 2**20)


class World:
    """Starts processes with one folder and one registry; `close` kills them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = f"sqlite:///{folder / 'router.db'}"
        self.gateways: list[Process] = []
        self.nodes: dict[str, Process] = {}
        self._started: list[Process] = []

    # Programs

    async def gateway(self, models: str, *more: str, listen: str = LOCAL) -> Process:
        """Start a router with `models` as its models.toml."""
        file = self.folder / f"models-{len(self._started)}.toml"
        file.write_text(models)
        started = await self.start(
            *("grpcerrors_router", "serve", "--listen", listen, "--models", str(file)),
            *("--registry", self.registry, "--metrics", LOCAL, *more),
        )
        self.gateways.append(started)
        return started

    async def node(
        self, name: str, router: Process, slots: int = 1, *, backend: str = "echo"
    ) -> Process:
        """Start a node that joins `router`; return when the router knows it."""
        self.nodes[name] = started = await self.start(
            *("grpcerrors_backends", backend, "--listen", LOCAL, "--slots", str(slots)),
            *("--files", str(self.folder)),
            *("--router", router.address, "--node-name", name),
        )
        await self.listed(router, name)
        return started

    async def foreign(self, *options: str, listen: str = LOCAL) -> Process:
        """Start a foreign backend; see bench.faults.foreign."""
        arguments = ("--ledger", str(self.folder / "ledger"), "--listen", listen, *options)
        return await self.start("bench.faults.foreign", *arguments)

    async def add_node(self, router: Process, node: Process, name: str, backend: str) -> None:
        """Register a foreign node by command."""
        self.nodes[name] = node
        await self.command(
            *("add-node", node.address, "--backend", backend, "--name", name),
            *("--gateway", router.address),
        )
        await self.listed(router, name)

    async def start(self, *arguments: str) -> Process:
        """Start `python -m arguments`; return when it has printed its addresses."""
        started = await self.launch(*arguments)
        stdout = started.process.stdout
        assert stdout is not None
        line = await asyncio.wait_for(stdout.readline(), START)
        started.addresses = re.findall(r"127\.0\.0\.1:\d+", line.decode())
        if not started.addresses:
            raise DidNotStart(f"{' '.join(arguments)}:\n{started.log.read_text()[-2000:]}")
        return started

    async def launch(self, *arguments: str) -> Process:
        """Start `python -m arguments` without waiting for it."""
        log = self.folder / f"{len(self._started)}-{arguments[0]}.log"
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *arguments), stdout=asyncio.subprocess.PIPE, stderr=stderr
            )
        started = Process(process, log)
        self._started.append(started)
        return started

    async def command(self, *arguments: str) -> str:
        """Run a command of grpcerrors-router; return its output. Name a gateway or the registry.

        Raises ValueError with its error message if it fails.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "grpcerrors_router", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), START)
        if process.returncode:
            raise ValueError(err.decode().strip())
        return out.decode()

    async def close(self) -> None:
        for each in self._started:
            await each.kill()

    # Results

    async def heals(self) -> list[dict[str, Any]]:
        """Return the heal log."""
        offline = ("--registry", self.registry)
        log = json.loads(await self.command("heals", "--json", "--limit", "10000", *offline))
        found: list[dict[str, Any]] = log["heals"]
        return found

    async def listed(self, router: Process, name: str) -> None:
        """Wait until `router` knows the node `name`."""
        await until(lambda: self._knows(router, name))

    async def holders(self, router: Process, model: str) -> list[str]:
        """Return the nodes that hold `model` according to `router`."""
        found = await samples(router, "router_generation")
        return [labels["node"] for labels, _ in found if labels["model"] == model]

    async def total(self, metric: str) -> int:
        """Return the sum of a metric over all labels and running routers."""
        running = [each for each in self.gateways if each.running]
        return int(sum([value for each in running for _, value in await samples(each, metric)]))

    def ledger(self, rpc: str = "") -> list[str]:
        """Return the request of each call that a node has started, for one RPC or for all."""
        file = self.folder / "ledger"
        lines = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
        return [
            line["request"]
            for line in lines
            if line["rpc"] == rpc or (not rpc and line["rpc"] != "LoadModel")
        ]

    async def record(self, result: Result) -> None:
        """Add loads, heals and repeated executions to `result`."""
        result.loads += await self.total("router_loads_total")
        result.heals += await self.total("router_heals_total")
        result.twice += sum(times > 1 for times in Counter(self.ledger()).values())

    def models(self, *names: str, replicas: int = 1, **options: object) -> str:
        """Return a models.toml of echo models with these load options."""
        lines = ["[models]"]
        for name in names:
            told = {"prefix": f"{name}/", "ledger": self.folder / "ledger", **options}
            listed = json.dumps([f"{key}:{value}" for key, value in told.items()])
            line = f'backend = "echo", replicas = {replicas}, options.Options = {listed}'
            lines.append(f"{name} = {{ {line} }}")
        return "\n".join(lines)

    @staticmethod
    async def _knows(router: Process, name: str) -> bool:
        found = await samples(router, "router_node_reachable")
        return any(labels["node"] == name for labels, _ in found)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Yield a World in a temporary folder; remove both afterwards."""
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        made = World(Path(folder))
        try:
            yield made
        finally:
            await made.close()


async def samples(router: Process, metric: str) -> list[tuple[dict[str, str], float]]:
    """Return the labels and the value of each sample of `metric`."""

    def scrape() -> str:
        with urllib.request.urlopen(f"http://{router.addresses[1]}/metrics", timeout=10) as page:
            return str(page.read().decode())

    text = await asyncio.to_thread(scrape)
    found = re.findall(rf"^{metric}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)
    return [(dict(re.findall(r'(\w+)="([^"]*)"', each)), float(value)) for each, value in found]


async def until(true: Callable[[], Any], within: float = START) -> None:
    """Wait until `await true()` is true. Raises TimeoutError."""
    async with asyncio.timeout(within):
        while not await true():  # noqa: ASYNC110 - the change happens in another process
            await asyncio.sleep(0.1)
