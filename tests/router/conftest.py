"""Fixtures: registries on real databases, and fleets on real sockets."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from grpcerrors_router import Events, ModelSpec, NodeRegistry, Settings, SmartRouter
from tests.router.support.postgres import Postgres, serving
from tests.router.support.registry import CLOCK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.router.support.nodes import Node

# Seconds that only a hang reaches. The tests of mutants set less.
HANG = float(os.environ.get("HANG_SECONDS", "300"))
# Short intervals and long time limits, since the machine may be busy. A test of a time limit
# shortens that one.
QUICK = Settings(
    poll_interval=0.05,
    lease_flush=0.1,
    lease_ttl=HANG,
    load_backoff=0.05,
    place_retry=0.02,
    min_residency=0.0,
    drain_after=HANG,
    load_hedge_free=HANG,
    probe_interval=0.1,
    watch_interval=0.05,
    probe_timeout=HANG,
    connect_timeout=HANG,
    status_timeout=HANG,
    quiesce_timeout=HANG,
    fresh_for=HANG,
)


class Recorder(Events):
    """Records every event by its name."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[Any, ...]]] = []

    def __getattribute__(self, name: str) -> Any:
        if name in vars(Events) and not name.startswith("_"):
            return lambda *args, **_: self.seen.append((name, args))
        return super().__getattribute__(name)

    def count(self, name: str) -> int:
        return sum(seen == name for seen, _ in self.seen)


@asynccontextmanager
async def fleet(
    url: str,
    *nodes: Node,
    routers: int = 1,
    models: dict[str, ModelSpec] | None = None,
    registry: Callable[..., NodeRegistry] = NodeRegistry,
    settings: Settings = QUICK,
    **options: Any,
) -> AsyncIterator[list[SmartRouter]]:
    """Run routers on one registry, with nodes that have registered."""
    models = models or {"m": ModelSpec("m", "fake"), "n": ModelSpec("n", "fake")}
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(node)
        made = [
            await stack.enter_async_context(
                SmartRouter(registry(url, timeout=HANG), models, settings=settings, **options)
            )
            for _ in range(routers)
        ]
        for node in nodes:
            await made[0].heartbeat(node.heartbeat())
        for router in made:
            await router.watcher.catch_up()
        yield made


async def eventually(condition: Callable[[], Any], *, within: float = HANG) -> None:
    """Wait until a condition holds; fail if it does not within the limit."""
    try:
        async with asyncio.timeout(within):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"after {within:.0f} s still not: {inspect.getsource(condition).strip()}")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'registry.db'}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL server for this session."""
    with serving() as server:
        yield server


_databases = itertools.count(1)


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """An empty database."""
    with postgres.database(f"registry_{next(_databases)}") as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest) -> str:
    """A registry on SQLite, and on PostgreSQL in the slow run."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def registry(url: str) -> AsyncIterator[NodeRegistry]:
    """A registry on the clock that tests move by hand."""
    async with NodeRegistry(url, router="r1", clock=CLOCK, timeout=HANG) as registry:
        yield registry
