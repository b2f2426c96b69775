"""LocalAI pull request 10181 on real processes, with a real model and real speech."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

from demo import client
from demo.fleet import MODEL
from grpcerrors import explain, is_model_not_loaded
from grpcerrors_router import NodeRegistry

if TYPE_CHECKING:
    from demo.fleet import Fleet
    from demo.processes import Process
    from demo.screen import Screen

BURST = 50
_EVICTIONS = 3
_GOOD = 0.7


class Story:
    """The steps of the demo, one method each. A step raises StepFailed if it fails."""

    def __init__(self, fleet: Fleet, screen: Screen) -> None:
        self._fleet = fleet
        self._screen = screen
        self._registry = self._database("router")

    def _database(self, name: str) -> str:
        return f"sqlite:///{self._fleet.folder / name}.db"

    async def tell(self) -> None:
        """Run every step in order."""
        await self._start_nodes()
        gateway = self._start_gateway("as-localai", "return")
        await self._transcribe(gateway)
        await self._unload_behind_the_router()
        await self._fail_once(gateway)
        await self._heal(gateway)
        gateway.stop()
        gateway = self._start_gateway("healing", "retry")
        await self._retry(gateway)
        await self._burst(gateway)
        await self._look_back(gateway)
        gateway.stop()
        await self._control()

    async def _start_nodes(self) -> None:
        self._screen.step("Start three nodes, each a process with one model slot")
        self._fleet.start_nodes()
        for name, node in self._fleet.nodes.items():
            self._screen.say(f"{name}: {node.address}, process {node.pid}")
        await self._fleet.introduce(self._registry)
        self._screen.say(
            "Like LocalAI's backends, they send no heartbeats, so we add them to the registry."
        )

    def _start_gateway(self, name: str, on_stale: str) -> Process:
        return self._fleet.start_gateway(name, on_stale, self._registry)

    async def _transcribe(self, gateway: Process) -> None:
        self._screen.step("1. Transcribe a sentence through the gateway, with --on-stale return")
        await self._expect_words(gateway, "the router loaded the model first")
        voice = await client.voice_at(gateway.address, "silero")
        heard = ", ".join(f"{start:.1f}-{end:.1f} s" for start, end in voice)
        self._screen.check(f"the vad node detected a voice at {heard}", held=bool(voice))

    async def _unload_behind_the_router(self) -> None:
        self._screen.step("2. Unload the model on its node; the process keeps running")
        holder = await self._holder()
        await client.unload(self._fleet.nodes[holder].address)
        alive = await client.health(self._fleet.nodes[holder].address)
        self._screen.check(f"{holder} still answers its health check: {alive}", held=alive == "OK")
        listed = await self._holder()
        self._screen.check(f"the registry still lists {MODEL} there", held=listed == holder)

    async def _fail_once(self, gateway: Process) -> None:
        self._screen.step("3. The next request gets the error, and the router drops the stale row")
        [outcome] = await client.transcribe(gateway.address, MODEL)
        failed = is_model_not_loaded(outcome.error)
        self._screen.check("the caller gets the error MODEL_NOT_LOADED", held=failed)
        self._screen.quote(explain(outcome.error))
        held = await self._holder() == ""
        self._screen.check(f"the registry no longer lists {MODEL} on any node", held=held)

    async def _heal(self, gateway: Process) -> None:
        self._screen.step("4. The next request makes the router load the model again")
        await self._expect_words(gateway, "healed without a restart")

    async def _retry(self, gateway: Process) -> None:
        self._screen.step("5. The same with --on-stale retry: the caller sees no error")
        await self._expect_words(gateway, "before the eviction")
        await client.unload(self._fleet.nodes[await self._holder()].address)
        await self._expect_words(gateway, "after the eviction, in one request")

    async def _burst(self, gateway: Process) -> None:
        self._screen.step(f"6. {BURST} concurrent requests for a model that has just been evicted")
        speech = client.beginning(self._fleet.folder, seconds=1.0)
        [alone] = await client.transcribe(gateway.address, MODEL, speech=speech)
        await client.unload(self._fleet.nodes[await self._holder()].address)
        before = self._counts(gateway)
        begun = time.perf_counter()
        outcomes = await client.transcribe(gateway.address, MODEL, speech=speech, times=BURST)
        seconds = time.perf_counter() - begun
        after = self._counts(gateway)
        answers = sum(outcome == alone for outcome in outcomes)
        drops, loads = (after[name] - before[name] for name in ("heals", "loads"))
        self._screen.check(
            f'{answers} answers "{alone.text}" in {seconds:.1f} s',
            held=answers == BURST and bool(alone.text),
        )
        self._screen.check(f"{drops:.0f} dropped row", held=drops == 1)
        self._screen.check(f"{loads:.0f} load of the model", held=loads == 1)

    async def _look_back(self, gateway: Process) -> None:
        self._screen.step("7. What the registry, the heal log and the metrics show")
        for command in ("status", "heals"):
            self._screen.say(f"grpcerrors-router {command}")
            self._screen.quote(self._command(command, gateway))
        self._screen.say(f"http://{gateway.addresses[1]}/metrics")
        names = ("router_heals_total", "router_loads_total", "router_retries_total")
        lines = [line for line in self._metrics(gateway) if line.startswith(names)]
        self._screen.quote("\n".join(lines))
        self._screen.check(
            "the heal log contains the heals of both gateways",
            held=await self._heals() == _EVICTIONS,
        )

    async def _control(self) -> None:
        self._screen.step("8. For comparison: the same router with healing off")
        registry = self._database("control")
        await self._fleet.introduce(registry)
        gateway = self._fleet.start_gateway("control", "off", registry)
        await self._expect_words(gateway, "before the eviction")
        await client.unload(self._fleet.nodes[await self._holder(registry)].address)
        tries = 5
        outcomes = [(await client.transcribe(gateway.address, MODEL))[0] for _ in range(tries)]
        failures = sum(is_model_not_loaded(outcome.error) for outcome in outcomes)
        self._screen.check(
            f"{failures} of {tries} requests fail after the eviction", held=failures == tries
        )
        gateway.stop()
        empty = self._database("empty")
        await self._fleet.introduce(empty)
        gateway = self._fleet.start_gateway("restarted", "off", empty)
        await self._expect_words(gateway, "after a restart with an empty registry")

    async def _expect_words(self, gateway: Process, why: str) -> None:
        [outcome] = await client.transcribe(gateway.address, MODEL)
        if outcome.error:
            self._screen.quote(explain(outcome.error))
        right = client.right_words(outcome.text)
        self._screen.check(
            f'transcript "{outcome.text}": {right:.0%} of the words are right ({why})',
            held=right >= _GOOD,
        )

    async def _holder(self, registry: str = "") -> str:
        """Return the node that holds the model according to the registry, "" if there is none."""
        async with NodeRegistry(registry or self._registry) as opened:
            views = (await opened.snapshot()).nodes
        holders = [view.name for view in views if MODEL in {each.model for each in view.replicas}]
        return "".join(holders)

    async def _heals(self) -> int:
        async with NodeRegistry(self._registry) as opened:
            return len(await opened.heals())

    def _counts(self, gateway: Process) -> dict[str, float]:
        counts = {"heals": 0.0, "loads": 0.0}
        for line in self._metrics(gateway):
            for name in counts:
                if line.startswith(f"router_{name}_total"):
                    counts[name] += float(line.rpartition(" ")[2])
        return counts

    def _metrics(self, gateway: Process) -> list[str]:
        with urllib.request.urlopen(f"http://{gateway.addresses[1]}/metrics") as answer:
            lines: list[str] = answer.read().decode().splitlines()
            return lines

    def _command(self, name: str, gateway: Process) -> str:
        """Run `grpcerrors-router NAME` on a gateway; return its output."""
        program = [sys.executable, "-m", "grpcerrors_router"]
        command = [*program, name, "--gateway", gateway.address]
        environment = os.environ | {"COLUMNS": "91"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return done.stdout.rstrip()
