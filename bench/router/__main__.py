"""`python -m bench.router [--rounds N] [--seconds S]`: measure the cost of the router.

The node, the gateway and the load generator are processes that share the cores of the machine. The
load generator is a grpc.aio client; the node is a grpc.aio server that does no work. The figures
are ratios to direct calls in the same run and depend on the number of cores: with a core for each
process, a gateway would cost less. The targets alternate within each round, and each figure is the
median over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.router import inprocess
from bench.router.load import throughput, warm_up
from bench.router.peers import PEERS, AbsentError, Target, node
from grpcerrors_protocol import logs

CONCURRENCY = 32
OURS, RAY = "this gateway", "Ray Serve, multiplexed"


async def _throughput(upstream: str, folder: Path, rounds: int, seconds: float) -> Table:
    table = Table("32 concurrent calls", "calls/s", "of direct", "target")
    with contextlib.ExitStack() as stack:
        targets = [Target("direct", upstream)]
        absent: dict[str, str] = {}
        for name, start in PEERS.items():
            try:
                target = stack.enter_context(start(upstream, folder))
                await warm_up(target)
                targets.append(target)
            except AbsentError as error:
                absent[name] = str(error)
        rates: dict[str, list[float]] = {target.name: [] for target in targets}
        for _ in range(rounds):
            for target in targets:
                rates[target.name].append(await throughput(target, seconds, CONCURRENCY))
    direct = rates["direct"]
    for name, found in rates.items():
        share = median(rate / base for rate, base in zip(found, direct, strict=True))
        promise = ">= 0.36" if name == OURS else ""
        table.add_row(name, f"{median(found):,.0f}", f"{share:.2f}", promise)
    for name, how in absent.items():
        table.add_row(name, "absent", how, "")
    if RAY in rates:
        times = median(a / b for a, b in zip(rates[OURS], rates[RAY], strict=True))
        table.add_row("this gateway compared with Ray Serve", "", f"{times:.1f} x", ">= 5 x")
    return table


async def _inprocess(upstream: str, folder: Path, rounds: int) -> Table:
    table = Table("in process", "ours", "compared with", "ratio", "target")
    direct, tracked = await inprocess.added_latency(upstream, folder, rounds)
    table.add_row(
        "p50 of a tracked call; direct call",
        f"{tracked * 1e6:,.0f} µs",
        f"{direct * 1e6:,.0f} µs",
        f"{tracked / direct:.2f}",
        "<= 1.15",
    )
    small, large = inprocess.picking(10), inprocess.picking(100)
    table.add_row(
        "pick among 100 replicas; among 10",
        f"{large * 1e6:.2f} µs",
        f"{small * 1e6:.2f} µs",
        f"{large / small:.2f}",
        "<= 20 µs",
    )
    count = await inprocess.statements(upstream, folder, 1000)
    table.add_row("database statements in 1,000 warm calls", str(count), "", "", "0")
    return table


async def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.router")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per target")
    parser.add_argument("--seconds", type=float, default=3.0, help="time per target in each round")
    options = parser.parse_args()
    logs.configure(logs.Level.WARNING)
    console = Console(width=100)
    with tempfile.TemporaryDirectory() as folder, node() as upstream:
        console.print(await _inprocess(upstream, Path(folder), options.rounds))
        console.print(await _throughput(upstream, Path(folder), options.rounds, options.seconds))
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    console.print(f"{os.cpu_count()} cores; load average {load}")


if __name__ == "__main__":
    asyncio.run(_main())
