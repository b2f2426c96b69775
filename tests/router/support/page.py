"""A router with one node, and its page."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router.entities import Node as Info
from grpcerrors_router.entities import NodeView, Replica
from grpcerrors_router.web.serving import PageServer
from tests.router.conftest import fleet
from tests.router.support.http import Browser
from tests.router.support.nodes import Node

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from grpcerrors_protocol.tls import ServerTls
    from grpcerrors_router import SmartRouter
    from grpcerrors_router.security.access import Access
    from grpcerrors_router.web.app import Page


@dataclass
class Served:
    """A page with its router and its node."""

    router: SmartRouter
    node: Node
    page: Page
    browser: Browser

    async def predict(self) -> None:
        await BackendStub(self.router.channel("m")).Predict(pb.PredictOptions(), timeout=60)


@asynccontextmanager
async def serving(
    url: str,
    access: Access | None = None,
    tls: ServerTls | None = None,
    trusting: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[Served]:
    node = Node("a", slots=2)
    with structlog.testing.capture_logs():
        async with fleet(url, node, **options) as (router,):
            server = PageServer(router, ("127.0.0.1", 0), access=access, tls=tls)
            url = await server.start()
            try:
                yield Served(router, node, server.page, Browser(url.split("/")[2], trusting))
            finally:
                await server.stop(1)


def fill(router: SmartRouter, nodes: int, models: int) -> None:
    """Let every node hold every model."""
    now, generation = time.time(), 0
    for number in range(nodes):
        name, rows = f"gpu-{number}", []
        for model in router.models:
            generation += 1
            rows.append(Replica(name, model, generation, generation, "b", now, last_used=now))
        info = Info(
            name,
            f"127.0.{number // 250 + 1}.{number % 250 + 1}:9",
            "fake",
            models,
            boot_id="b",
            last_seen=now,
        )
        router.table.apply(NodeView(router.watcher.seen, name, info, tuple(rows), (), now))
        entry, later = router.table.nodes[name], time.monotonic() + 3600
        entry.heard_at = entry.fresh_until = later  # nobody sends heartbeats
