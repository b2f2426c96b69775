"""Ten faults of a fleet of real processes, each as a context manager.

    async with site(folder) as made, FAULTS["node-down"](made) as fault:
        ...  # the router at made.gateway must now name fault.node

A fault is on when its body begins, and over when the body has ended, also if that fails. Requests
for `steady` and for the model of the fault run all the time.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from tests.router.support.postgres import Postgres, serving
from tests.router.support.processes import Fleet, Process, fleet
from tests.router.support.traffic import Traffic, until_seen

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

STEADY = "steady"
REASON = "cannot open weights.bin: no such file"
FOREVER = 86_400

MODELS = f"""
[models]
{STEADY} = {{ backend = "echo" }}
lost = {{ backend = "echo" }}
broken = {{ backend = "echo", options.Options = ["fail_load:{REASON}"] }}
hanging = {{ backend = "slow", options.Options = ["load_seconds:{FOREVER}"] }}
busy = {{ backend = "slow", options.Options = ["answer_seconds:0.5"] }}
vanishing = {{ backend = "forgetful" }}
homeless = {{ backend = "nowhere" }}
"""

SUPPORT = "tests.router.support.faultnodes"


@dataclass(frozen=True)
class Fault:
    """What people must be told about a fault.

    Attributes:
        name: the fault.
        model: the model that suffers; "" if all or none do.
        node: the node that is to blame; "" if none is.
        detail: words that say why, as the router knows them; "" for none.
    """

    name: str
    model: str = ""
    node: str = ""
    detail: str = ""


@dataclass
class Site:
    """A gateway, the nodes `left` and `right` behind it, and traffic for the model `steady`."""

    fleet: Fleet
    gateway: Process
    nodes: dict[str, Process]
    traffic: Traffic
    steady: Counter[str]
    postgres: Postgres | None = None

    async def holder(self, model: str) -> str:
        """Return the node that holds a model."""
        (name,) = await self.fleet.holders(model)
        return name


@asynccontextmanager
async def site(
    folder: Path, *serve: str, models: str = MODELS, postgres: bool = False
) -> AsyncIterator[Site]:
    """Start a healthy site, whose gateway gets the options `serve`; end it afterwards.

    `registry-down` needs `postgres`, a registry on a PostgreSQL server of its own.
    """
    async with contextlib.AsyncExitStack() as stack:
        database = stack.enter_context(serving()) if postgres else None
        url = database.get_uri() if database is not None else ""
        made = await stack.enter_async_context(fleet(folder, models, url))
        gateway = await made.gateway("127.0.0.1:0", *serve)
        nodes = {
            name: await made.node(gateway.address, name, "127.0.0.1:0", "--slots", "4")
            for name in ("left", "right")
        }
        traffic = stack.enter_context(Traffic(gateway.address))
        steady = stack.enter_context(traffic.to(STEADY))
        await until_seen(steady, "OK")
        yield Site(made, gateway, nodes, traffic, steady, database)


@asynccontextmanager
async def lost_model(site: Site) -> AsyncIterator[Fault]:
    """A node keeps dropping a model behind the router's back; the router heals each time."""
    with site.traffic.to("lost") as seen:
        await until_seen(seen, "OK")
        node = await site.holder("lost")
        async with grpc.aio.insecure_channel(site.nodes[node].address) as channel:
            free = BackendStub(channel).Free

            async def drop() -> None:
                await free(pb.HealthMessage(), metadata=(("x-model-id", "lost"),))
                await until_seen(seen, "OK", 3)  # so that it is never quarantined

            await drop()
            dropping = asyncio.create_task(_forever(drop))
            try:
                yield Fault("lost-model", "lost", node)
            finally:
                dropping.cancel()
                await asyncio.wait({dropping})


@asynccontextmanager
async def node_down(site: Site) -> AsyncIterator[Fault]:
    """A node is killed; afterwards it is started again."""
    name = await site.holder(STEADY)
    node = site.nodes[name]
    await node.kill()
    try:
        yield Fault("node-down", STEADY, name)
    finally:
        site.nodes[name] = await site.fleet.node(
            site.gateway.address, name, node.address, "--slots", "4"
        )


@asynccontextmanager
async def node_stopped(site: Site) -> AsyncIterator[Fault]:
    """A node is stopped by SIGSTOP: its connections stay open, and it does not answer."""
    name = await site.holder(STEADY)
    site.nodes[name].pause()
    try:
        yield Fault("node-stopped", STEADY, name)
    finally:
        site.nodes[name].resume()


@asynccontextmanager
async def load_hangs(site: Site) -> AsyncIterator[Fault]:
    """A load does not end."""
    async with _extra_node(site, "sleeper"):
        with site.traffic.to("hanging") as seen:
            await until_seen(seen, "LOAD_TIMEOUT")
            yield Fault("load-hangs", "hanging", "sleeper")


@asynccontextmanager
async def load_fails(site: Site) -> AsyncIterator[Fault]:
    """Every node refuses to load a model."""
    with site.traffic.to("broken") as seen:
        await until_seen(seen, "LOAD_FAILED")
        yield Fault("load-fails", "broken", detail=REASON)


@asynccontextmanager
async def quarantine(site: Site) -> AsyncIterator[Fault]:
    """A foreign node loses a model before it serves a request, again and again."""
    node = await site.fleet.start(SUPPORT)
    await site.fleet.registry.add_node(node.address, "forgetful", name="forgetful")
    try:
        with site.traffic.to("vanishing") as seen:
            await until_seen(seen, "NO_CAPACITY")
            yield Fault("quarantine", "vanishing", "forgetful")
    finally:
        await site.fleet.registry.remove_node("forgetful")
        await node.kill()


@asynccontextmanager
async def no_capacity(site: Site) -> AsyncIterator[Fault]:
    """No node offers the backend of a model."""
    with site.traffic.to("homeless") as seen:
        await until_seen(seen, "NO_CAPACITY")
        yield Fault("no-capacity", "homeless", detail="nowhere")


@asynccontextmanager
async def registry_down(site: Site) -> AsyncIterator[Fault]:
    """The registry's database server is stopped; afterwards it is started again."""
    database = site.postgres
    assert database is not None, "registry-down needs site(..., postgres=True)"
    await asyncio.to_thread(database.stop)
    try:
        yield Fault("registry-down")
    finally:
        await asyncio.to_thread(database.start)


@asynccontextmanager
async def overload(site: Site) -> AsyncIterator[Fault]:
    """More callers than a node admits: it answers RESOURCE_EXHAUSTED to some."""
    async with _extra_node(site, "narrow", "--max-calls", "2"):
        with site.traffic.to("busy", callers=1) as seen:
            await until_seen(seen, "OK")
            with site.traffic.to("busy", callers=7):
                await until_seen(seen, "RESOURCE_EXHAUSTED")
                yield Fault("overload", "busy", "narrow")


@asynccontextmanager
async def name_taken(site: Site) -> AsyncIterator[Fault]:
    """A second process wants the name of a live node."""
    router, log = site.gateway.address, site.fleet.folder
    second = await site.fleet.start(
        "grpcerrors_backends", "echo", "--listen", "127.0.0.1:0", "--router", router,
        "--node-name", "left",
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            while not any("NAME_TAKEN" in each or "belongs to" in each for each in _logs(log)):
                await asyncio.sleep(0.05)
        yield Fault("name-taken", node="left", detail=second.address)
    finally:
        await second.kill()


FAULTS: dict[str, Callable[[Site], AbstractAsyncContextManager[Fault]]] = {
    "lost-model": lost_model,
    "node-down": node_down,
    "node-stopped": node_stopped,
    "load-hangs": load_hangs,
    "load-fails": load_fails,
    "quarantine": quarantine,
    "no-capacity": no_capacity,
    "registry-down": registry_down,
    "overload": overload,
    "name-taken": name_taken,
}


@asynccontextmanager
async def _extra_node(site: Site, name: str, *options: str) -> AsyncIterator[None]:
    """Run a node of the backend `slow`."""
    node = await site.fleet.node(
        site.gateway.address, name, "127.0.0.1:0", *options, backend=f"{SUPPORT}:Slow"
    )
    try:
        yield
    finally:
        await node.kill()
        await site.fleet.registry.remove_node(name)


def _logs(folder: Path) -> list[str]:
    return [file.read_text() for file in folder.glob("*-grpcerrors_router.log")]


async def _forever(step: Callable[[], object]) -> None:
    while True:
        await step()  # type: ignore[misc]
