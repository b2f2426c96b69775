"""`serve`: the gateway, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer

from grpcerrors_router import logs, metrics
from grpcerrors_router.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_REGISTRY,
    Registry,
    check_registry_url,
    split_address,
)
from grpcerrors_router.config.models_toml import read_models
from grpcerrors_router.gateway.server import GatewayServer
from grpcerrors_router.registry.registry import NodeRegistry
from grpcerrors_router.router import SmartRouter

if TYPE_CHECKING:
    from collections.abc import Coroutine

log = structlog.get_logger("router")


class OnStale(StrEnum):
    """What becomes of a request that met a stale replica."""

    RETRY = "retry"
    RETURN = "return"
    OFF = "off"


def serve(
    models: Annotated[Path, typer.Option(metavar="FILE", help="The catalogue, models.toml.")],
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to serve; port 0 takes any.")
    ] = DEFAULT_ADDRESS,
    registry: Registry = DEFAULT_REGISTRY,
    on_stale: Annotated[
        OnStale,
        typer.Option(
            help="A request that met a stale replica is sent again, gets its error after the heal, "
            "or gets its error and nothing is healed."
        ),
    ] = OnStale.RETRY,
    metrics_at: Annotated[
        str | None,
        typer.Option("--metrics", metavar="HOST:PORT", help="Serve Prometheus metrics there."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="This router, in the registry.")] = None,
    grace: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="What calls in flight get at a stop.")
    ] = 30.0,
    log_level: Annotated[logs.Level, typer.Option(help="How much to log.")] = logs.Level.INFO,
) -> None:
    """Serve the gateway; print one line when it is ready."""
    split_address(listen, "--listen")
    at = None if metrics_at is None else split_address(metrics_at, "--metrics")
    catalogue = read_models(models)
    logs.configure(log_level)
    counted = metrics.Metrics()
    smart = SmartRouter(
        NodeRegistry(check_registry_url(registry), router=name or ""),
        catalogue,
        on_stale=on_stale.value,
        events=counted,
    )
    _run(_serve(smart, listen, counted, at, grace))


async def _serve(
    router: SmartRouter,
    listen: str,
    counted: metrics.Metrics,
    metrics_at: tuple[str, int] | None,
    grace: float,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        ready = "router ready on "
        await stack.enter_async_context(router)
        server = GatewayServer(router, listen, counted.refused)
        ready += await server.start()
        stack.push_async_callback(server.stop, grace)
        counted.follow(router.table)
        if metrics_at is not None:
            address, stop_metrics = metrics.serve(counted, *metrics_at)
            stack.callback(stop_metrics)
            ready += f", metrics on {address}"
        print(ready, flush=True)  # noqa: T201 - the line that scripts wait for
        await stop.wait()
        for number in signals:  # a second one need not wait for the grace to end
            loop.remove_signal_handler(number)
        log.info("stopping", in_flight=router.table.in_flight(), grace=grace)


def _run(work: Coroutine[Any, Any, None]) -> None:
    # A fifth more calls a second than on asyncio's own loop; there is none for Windows.
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)
