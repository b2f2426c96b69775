"""`python -m bench.router.traces [--base DIR]`: measure the cost of traces and metrics.

Gateways with and without `--traces` and `--metrics` serve the same node, and take turns in each
round. With `--base`, a gateway of another checkout takes part, such as the one before a change. The
figures are relative to the gateway with neither. Processor time per call is the least of all
rounds, since other programs only add to it; calls per second are the median. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import grpc
from rich.console import Console
from rich.table import Table

from bench.router.load import throughput, warm_up
from bench.router.peers import MODEL, ROOT, Target, node

if TYPE_CHECKING:
    from collections.abc import Iterator

CONCURRENCY = 32
EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"


@dataclass
class Subject:
    """A gateway, and what was measured of it."""

    name: str
    target: Target
    process: int
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    async def measure(self, seconds: float) -> None:
        """Send calls for that long."""
        before = self._processor_time()
        rate = await throughput(self.target, seconds, CONCURRENCY)
        self.rates.append(rate)
        self.seconds.append((self._processor_time() - before) / (rate * seconds))

    def _processor_time(self) -> float:
        """Return the seconds of all threads, in nanoseconds as Linux counts them."""
        tasks = Path(f"/proc/{self.process}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


@contextlib.contextmanager
def gateway(
    name: str, upstream: str, folder: Path, tree: Path, options: tuple[str, ...], collector: str
) -> Iterator[Subject]:
    """Run the gateway of a checkout."""
    own = folder / name
    own.mkdir()
    (own / "models.toml").write_text(f'[models.{MODEL}]\nbackend = "bench"\n')
    registry = ("--registry", f"sqlite:///{own}/router.db")
    path = os.pathsep.join(str(tree / room) for room in ("", "router", "backends", "protocol"))
    environment = {**os.environ, "PYTHONPATH": path, "OTEL_EXPORTER_OTLP_ENDPOINT": collector}
    if name.endswith("%"):
        share = str(int(name.split()[-2]) / 100)
        environment |= {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": share}
    me = (sys.executable, "-m", "grpcerrors_router")
    serve = ("serve", "--listen", "127.0.0.1:0", "--models", str(own / "models.toml"))
    command = [*me, *serve, *registry, "--log-level", "warning", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=own, env=environment
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            (address, *_) = re.findall(r"127\.0\.0\.1:\d+", line)
            subprocess.run(
                [*me, "add-node", upstream, "--backend", "bench", *_reached(tree, address, own)],
                check=True, cwd=own, env=environment, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            yield Subject(name, Target(name, address), process.pid)
        finally:
            process.terminate()


def _reached(tree: Path, address: str, folder: Path) -> tuple[str, ...]:
    """Return how that version's `add-node` reaches the router."""
    source = (tree / "router/grpcerrors_router/cli/nodes.py").read_text()
    if "registry: Registry" in source:
        return ("--registry", f"sqlite:///{folder}/router.db")
    return ("--gateway", address)


@contextlib.asynccontextmanager
async def collecting() -> Any:
    """Run a collector that drops all spans; yield its address."""
    server = grpc.aio.server()

    async def export(_request: bytes, _context: Any) -> bytes:
        return b""

    handler = grpc.unary_unary_rpc_method_handler(export)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(EXPORT, {"Export": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"http://127.0.0.1:{port}"
    await server.stop(0)


async def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.router.traces")
    parser.add_argument("--rounds", type=int, default=9, help="rounds per gateway")
    parser.add_argument("--seconds", type=float, default=2.0, help="time per gateway and round")
    parser.add_argument("--base", type=Path, metavar="DIR", help="another checkout to compare with")
    options = parser.parse_args()
    metrics = ("--metrics", "127.0.0.1:0")
    wanted = [
        ("neither", ROOT, ()),
        ("metrics", ROOT, metrics),
        ("traces", ROOT, ("--traces",)),
        ("traces of 1 %", ROOT, ("--traces",)),
        ("traces and metrics", ROOT, ("--traces", *metrics)),
    ]
    if options.base is not None:
        wanted += [("base, neither", options.base, ()), ("base, metrics", options.base, metrics)]
    async with collecting() as collector:
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.ExitStack() as stack,
            node() as upstream,
        ):
            subjects = [
                stack.enter_context(
                    gateway(name, upstream, Path(folder), tree.resolve(), more, collector)
                )
                for name, tree, more in wanted
            ]
            for subject in subjects:
                await warm_up(subject.target)
                await throughput(subject.target, 1.0, CONCURRENCY)
            for index in range(options.rounds):
                turn = index % len(subjects)  # so that none always follows the same one
                for subject in subjects[turn:] + subjects[:turn]:
                    await subject.measure(options.seconds)
    console = Console(width=100)
    console.print(_table(subjects))
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    console.print(f"{os.cpu_count()} cores; load average {load}")


def _table(subjects: list[Subject]) -> Table:
    table = Table("gateway with", "processor time per call", "ratio", "calls/s", "ratio")
    base = subjects[0]
    for subject in subjects:
        table.add_row(
            subject.name,
            f"{min(subject.seconds) * 1e6:.0f} µs",
            f"{min(subject.seconds) / min(base.seconds):.3f}",
            f"{median(subject.rates):,.0f}",
            f"{median(subject.rates) / median(base.rates):.3f}",
        )
    return table


if __name__ == "__main__":
    asyncio.run(_main())
