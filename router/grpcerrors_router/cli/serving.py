"""The process that `serve` runs: router, gateway and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from grpcerrors_protocol import logs
from grpcerrors_protocol.readiness import report_ready
from grpcerrors_router import metrics, tasks
from grpcerrors_router.config.models_toml import read_models
from grpcerrors_router.config.reload import Reloader, warn_of_shared_identities
from grpcerrors_router.gateway.headers import Headers
from grpcerrors_router.gateway.server import GatewayServer
from grpcerrors_router.nodes.client import NodeClient
from grpcerrors_router.registry.registry import NodeRegistry
from grpcerrors_router.router import SmartRouter
from grpcerrors_router.security.access import Access

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from opentelemetry.sdk.trace import TracerProvider

    from grpcerrors_protocol.exposure import Protection
    from grpcerrors_protocol.tls import TlsFiles
    from grpcerrors_router.calls.retry import OnStale
    from grpcerrors_router.entities import ModelSpec
    from grpcerrors_router.security.node_tokens import NodeTokens
    from grpcerrors_router.tracing import Tracing

log = structlog.get_logger("router")


@dataclass(frozen=True)
class Server:
    """The options of `serve`."""

    models: Path
    registry: str
    name: str
    listen: str
    on_stale: OnStale
    metrics_at: tuple[str, int] | None
    page_at: tuple[str, int] | None
    traces: bool
    tokens: Path | None
    node_tokens: NodeTokens | None
    forward: tuple[str, ...]
    grace: float
    tls: TlsFiles
    protection: Protection


def run(server: Server, level: logs.Level, form: logs.Format | None) -> None:
    """Serve until SIGTERM or SIGINT."""
    models = read_models(server.models)
    logs.configure(level, form)
    server.protection.check("--listen", server.listen, log.warning)
    if server.metrics_at is not None:
        host, port = server.metrics_at
        asks_nobody = replace(server.protection, tokens=False, by="")
        asks_nobody.check("--metrics", f"{host}:{port}", log.warning)
    if server.page_at is not None:
        host, port = server.page_at
        server.protection.check("--http", f"{host}:{port}", log.warning)
    access = None if server.tokens is None else Access(server.tokens)
    warn_of_shared_identities(models)
    work = _serve(server, models, access)
    # uvloop serves a fifth more calls per second than asyncio's own loop. Windows has none.
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


async def _serve(server: Server, models: Mapping[str, ModelSpec], access: Access | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    counted = metrics.Metrics() if server.metrics_at is not None else None
    registry = NodeRegistry(server.registry, router=server.name)
    provider, tracing = _traces(registry.router) if server.traces else (None, None)
    tls, nodes = (
        server.tls.server(log.warning),
        NodeClient.over_grpc(
            server.tls.client(log.warning),
            tracing.headers if tracing is not None else tuple,
            tokens=server.node_tokens,
        ),
    )
    router = SmartRouter(
        registry,
        models,
        on_stale=server.on_stale,
        events=counted,
        nodes=nodes,
        tracing=tracing,
    )
    async with contextlib.AsyncExitStack() as stack:
        if provider is not None:
            from grpcerrors_protocol.tracing import finish

            stack.push_async_callback(asyncio.to_thread, finish, provider)
        await stack.enter_async_context(router)
        if access is not None:
            watching = asyncio.create_task(access.watch())
            stack.push_async_callback(tasks.stop, [watching])
            if "authorization" in server.forward:
                log.warning("nodes see the callers' tokens: --forward-header authorization")
        reloader = Reloader(router, server.models, None if access is None else access.read)
        gateway = GatewayServer(
            router,
            server.listen,
            reloader.reload,
            access=access,
            headers=Headers(server.forward),
            tls=tls,
            nodes_over_tls=server.tls.ca is not None,
        )
        with _naming("--listen", server.listen):
            ready = f"router ready on {await gateway.start()}"
        stack.push_async_callback(gateway.stop, server.grace)
        if counted is not None and server.metrics_at is not None:
            counted.follow(router)
            host, port = server.metrics_at
            with _naming("--metrics", f"{host}:{port}"):
                address, stop_metrics = metrics.serve(counted, host, port, tls)
            stack.push_async_callback(asyncio.to_thread, stop_metrics)
            ready += f", metrics on {address}"
        if server.page_at is not None:
            from grpcerrors_router.web.serving import PageServer

            page = PageServer(router, server.page_at, access=access, tls=tls)
            with _naming("--http", page.address):
                ready += f", page on {await page.start()}"
            stack.push_async_callback(page.stop, server.grace)
        _reload_on_hangup(reloader)
        print(ready, flush=True)  # noqa: T201 - the line that scripts wait for
        report_ready()
        await stop.wait()
        for number in signals:  # so that a second signal ends the process at once
            loop.remove_signal_handler(number)
        log.info("stopping", in_flight=router.table.in_flight(), grace=server.grace)


def _traces(name: str) -> tuple[TracerProvider, Tracing]:
    """Return what sends the spans of the router of that name, and what makes them."""
    from grpcerrors_protocol.tracing import provider
    from grpcerrors_router.tracing import Tracing

    made = provider("grpcerrors-router", name)
    return made, Tracing(made)


def _reload_on_hangup(reloader: Reloader) -> None:
    """Read the configuration again at each SIGHUP. Windows has none."""
    tasks: set[asyncio.Task[object]] = set()

    def reload() -> None:
        task: asyncio.Task[object] = asyncio.create_task(reloader.reload())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


@contextlib.contextmanager
def _naming(option: str, address: str) -> Iterator[None]:
    """Name the option in the error when its address cannot be bound."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{option} {address}: the port is taken, or this machine does not have that address; "
            "choose another, or port 0 for any free port"
        ) from error
