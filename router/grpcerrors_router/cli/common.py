"""What the commands share: options, addresses, the registry, the console."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from grpcerrors_router.registry.registry import NodeRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DEFAULT_ADDRESS = "127.0.0.1:50050"
WIDTH = 100

Registry = Annotated[
    str,
    typer.Option(
        metavar="URL",
        envvar="ROUTER_REGISTRY",
        help="sqlite:///FILE, or postgresql://... when routers share it.",
    ),
]
DEFAULT_REGISTRY = "sqlite:///router.db"
Gateway = Annotated[
    str,
    typer.Option(metavar="HOST:PORT", envvar="ROUTER_GATEWAY", help="A running gateway."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def split_address(address: str, option: str) -> tuple[str, int]:
    """Return host and port of "host:port". Raises ValueError that names the `option`."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - the highest port
        raise ValueError(f"{option} must be HOST:PORT, as {DEFAULT_ADDRESS}; not {address!r}")
    return host, int(port)


def check_registry_url(url: str) -> str:
    """Return `url`. Raises ValueError, without the password in it, when it is none."""
    try:
        make_url(url)
    except ArgumentError as error:
        raise ValueError(
            "--registry is not a URL; use sqlite:///FILE or postgresql://USER@HOST/DATABASE"
        ) from error
    return url


@contextlib.asynccontextmanager
async def existing_registry(url: str) -> AsyncIterator[NodeRegistry]:
    """Open a registry that a router has made. Raises ValueError when its file is not there."""
    _check_file(check_registry_url(url))
    async with NodeRegistry(url) as registry:
        yield registry


def _check_file(url: str) -> None:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        raise ValueError(
            f"no registry at {parsed.database}; start grpcerrors-router serve, or give --registry"
        )


def console() -> Console:
    """Return a console that fits 100 columns, with colour on a terminal only."""
    found = Console(highlight=False, soft_wrap=False)
    if found.width > WIDTH or not (found.is_terminal or "COLUMNS" in os.environ):
        found.width = WIDTH
    return found
