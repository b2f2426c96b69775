"""Random input at every port: no crash, no traceback, no bug's status code, and no growth."""

from __future__ import annotations

import asyncio
import os
import random
import urllib.request
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from tests.router.conftest import HANG
from tests.router.support.fuzzing import Found, Fuzzer
from tests.router.support.processes import Fleet, Process, fleet

if TYPE_CHECKING:
    from pathlib import Path

MODELS = """\
[models]
m = { backend = "echo" }
n = { backend = "sample" }
"""
SAMPLE = "tests.backends.support.samples:Sync"
SEED = int(os.environ.get("FUZZ_SEED", "1"))
GROWTH = 60  # MiB: caches of gRPC and protobuf, and the allocator's fragments


@pytest.mark.slow
async def test_a_thousand_random_inputs(tmp_path: Path) -> None:
    await attack(tmp_path, 1_000, SEED)


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_a_hundred_thousand_random_inputs(tmp_path: Path) -> None:
    await attack(tmp_path, 100_000, SEED)


async def attack(folder: Path, count: int, seed: int) -> None:
    """Start a router and two nodes, sync and aio; send `count` inputs to their ports.

    The environment variable FUZZ_SEED chooses other inputs.
    """
    async with fleet(folder, MODELS) as world:
        gateway = await world.gateway("127.0.0.1:0", "--http", "127.0.0.1:0")
        nodes = [
            await world.node(gateway.address, "aio", backend="echo"),
            await world.node(gateway.address, "sync", backend=SAMPLE),
        ]
        ports = {"gateway": gateway.addresses[0], "metrics": gateway.addresses[1]}
        ports["page"] = gateway.addresses[2]
        ports |= {f"node {index}": node.address for index, node in enumerate(nodes)}
        processes = (gateway, *nodes)
        await still_works(gateway)
        await send(ports, max(200, count // 10), seed + 1)  # what is allocated once
        before = [resident(process) for process in processes]
        rows = await known(world)
        found = await send(ports, count, seed)
        assert not found.wrong, found.wrong[:10]
        assert found.inputs >= count
        for process, was in zip(processes, before, strict=True):
            assert process.process.returncode is None
            grown = resident(process) - was
            assert grown < GROWTH, f"{process.address}: {was} MiB + {grown}"
        await still_works(gateway)
        assert await known(world) == rows
        check_logs(folder)


def check_logs(folder: Path) -> None:
    for log in folder.glob("*.log"):
        text = log.read_text(errors="replace")
        place = text.find("Traceback")
        assert place < 0, text[max(0, place - 2000) :][:6000]
        assert "\x1b" not in text
        assert "internal error" not in text


async def send(ports: dict[str, str], count: int, seed: int) -> Found:
    found = Found()
    share = -(-count // (len(ports) * 4))
    async with asyncio.TaskGroup() as group:
        for name, address in ports.items():
            for number in range(4):
                fuzzer = Fuzzer(address, random.Random(f"{seed} {name} {number}"), found)
                group.create_task(
                    fuzzer.http(share) if name in ("metrics", "page") else fuzzer.grpc(share)
                )
    return found


async def still_works(gateway: Process) -> None:
    """Expect answers through the gateway, and no calls in flight."""
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        for model in ("m", "n"):
            answer = await BackendStub(channel).Predict(
                pb.PredictOptions(Prompt="hi"), metadata=[("x-model-id", model)], timeout=HANG
            )
            assert answer.message == b"hi"
    async with asyncio.timeout(HANG):
        while any(
            float(line.split()[-1])
            for line in (await asyncio.to_thread(metrics, gateway)).splitlines()
            if line.startswith("router_in_flight")
        ):
            await asyncio.sleep(0.1)


def metrics(gateway: Process) -> str:
    with urllib.request.urlopen(f"http://{gateway.addresses[1]}/metrics", timeout=HANG) as page:
        text: str = page.read().decode()
    return text


def resident(process: Process) -> int:
    return int(psutil.Process(process.process.pid).memory_info().rss) >> 20


async def known(world: Fleet) -> list[str]:
    """Return the names of the nodes in the registry."""
    return sorted(view.name for view in (await world.registry.snapshot()).nodes)
