"""Inject faults into real processes and report the failed requests."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.faults import capacity, fleets, slow, stale
from bench.faults.report import Result, figures, verdicts
from bench.faults.world import world

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.faults.world import World

LIMIT = 300.0  # seconds for a scenario, in addition to those of its traffic


@dataclass(frozen=True)
class Scenario:
    """A scenario that sends traffic for `seconds`; 0 if it ends by itself."""

    run: Callable[[World, float], Awaitable[Result]]
    seconds: float = 0.0


SCENARIOS = {
    "evictions": Scenario(stale.evictions, 60),
    "sigstop": Scenario(slow.sigstop, 40),
    "hanging-load": Scenario(slow.hanging_load, 60),
    "burst": Scenario(slow.burst),
    "foreign-burst": Scenario(slow.foreign_burst),
    "thrash": Scenario(capacity.thrash, 30),
    "words": Scenario(stale.words),
    "quoted-words": Scenario(stale.quoted_words),
    "own-evictions": Scenario(capacity.own_evictions, 150),
    "kill9-eviction": Scenario(capacity.kill9_eviction),
    "one-worker": Scenario(slow.one_worker),
    "always-fails-in-words": Scenario(stale.always_fails_in_words),
    "foreign-restart": Scenario(stale.foreign_restart, 40),
    "two-routers": Scenario(fleets.two_routers, 30),
    "proxy-loop": Scenario(fleets.proxy_loop),
    "name-clash": Scenario(fleets.name_clash),
}


async def run(name: str, seconds: float | None = None) -> Result:
    """Run one scenario. Raises its exceptions, and TimeoutError if it does not end."""
    scenario = SCENARIOS[name]
    duration = scenario.seconds if seconds is None else seconds
    async with asyncio.timeout(LIMIT + duration), world() as made:
        return await scenario.run(made, duration)


async def _run_all(names: list[str], seconds: float | None, results: list[Result]) -> None:
    """Add a result as each scenario ends, so that an interrupted run has some to show."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            result = await run(name, seconds)
        except Exception as error:  # noqa: BLE001 - the other scenarios are still worth running
            traceback.print_exc()
            result = Result(name)
            result.check("completed", "yes", repr(error)[:200], passed=False)
        results.append(result)


def main() -> int:
    """Return 1 when a figure was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    names = ", ".join(SCENARIOS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"scenarios to run: {names}")
    parser.add_argument("--seconds", type=float, help="send traffic for this long")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    options = parser.parse_args()
    unknown = set(options.names) - set(SCENARIOS)
    if unknown:
        parser.error(f"unknown scenarios: {', '.join(sorted(unknown))}; available: {names}")
    results: list[Result] = []
    interrupted = False
    try:
        asyncio.run(_run_all(options.names or list(SCENARIOS), options.seconds, results))
    except (asyncio.CancelledError, KeyboardInterrupt):
        interrupted = True
    console = Console(width=max(Console().width, 120))
    console.print(figures(results), verdicts(results))
    for result in results:
        for note in result.notes:
            console.print(f"{result.scenario}: {note}", markup=False, highlight=False)
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    console.print(f"{os.cpu_count()} cores; load average {load}")
    if options.json:
        data = {"load": os.getloadavg(), "results": [result.as_data() for result in results]}
        options.json.write_text(json.dumps(data, indent=2) + "\n")
    return 130 if interrupted else int(not all(result.passed for result in results))


if __name__ == "__main__":
    sys.exit(main())
