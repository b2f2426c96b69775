"""What the commands share: options, access to the registry, and the console."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from google.protobuf.message import Message
    from rich.console import Console

    from grpcerrors_router.registry.registry import NodeRegistry

DEFAULT_ADDRESS = "127.0.0.1:50050"
WIDTH = 100

Registry = Annotated[
    str,
    typer.Option(
        metavar="URL",
        envvar="ROUTER_REGISTRY",
        help="Use the registry at sqlite:///FILE or postgresql://USER@HOST/DATABASE.",
    ),
]
DEFAULT_REGISTRY = "sqlite:///router.db"
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def check_registry_url(url: str) -> str:
    """Return `url`.

    Raises:
        ValueError: it is not the URL of a registry. The text masks its password.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    use = "use sqlite:///FILE or postgresql://USER@HOST/DATABASE"
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError(f"--registry is not a URL; {use}") from None
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ValueError(f"--registry {parsed.render_as_string(hide_password=True)}: {use}")
    return url


def check_traces() -> None:
    """Raise ValueError if OpenTelemetry is not installed."""
    try:
        import opentelemetry.exporter.otlp.proto.grpc.trace_exporter  # noqa: F401
    except ImportError:
        raise ValueError(
            "--traces needs OpenTelemetry; install it: pip install 'grpcerrors-router[otel]'"
        ) from None


@contextlib.contextmanager
def database_errors(url: str) -> Iterator[None]:
    """Turn an error of the database driver into a ValueError of one line.

    An example is a file that is not a database.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as error:
        shown = make_url(url).render_as_string(hide_password=True)
        raise ValueError(f"{shown} cannot be used as a registry: {error.orig}") from error


@contextlib.asynccontextmanager
async def existing_registry(url: str) -> AsyncIterator[NodeRegistry]:
    """Open a registry that a router has created. Only `serve` changes its schema.

    Raises:
        ValueError: its file does not exist, or the URL is invalid.
        RegistryOutdated: its schema is that of another version.
    """
    from grpcerrors_router.registry.registry import NodeRegistry

    _check_file(check_registry_url(url))
    with database_errors(url):
        registry = NodeRegistry(url)
        try:
            await registry.open(migrate=False)
            yield registry
        finally:
            await registry.close()


def _check_file(url: str) -> None:
    from sqlalchemy import make_url

    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        raise ValueError(
            f"no registry at {parsed.database}; start grpcerrors-router serve, or give --registry"
        )


def print_json(message: Message) -> None:
    """Print a message as JSON, on one line, with the names of fleet.proto."""
    from google.protobuf.json_format import MessageToDict

    data = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    json.dump(data, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, since there is something to clean up.

    Elsewhere it ends the program at once; see `cli.main`.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:  # not started as a program
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def console() -> Console:
    """Return a console of at most 100 columns, with colour on a terminal only."""
    from rich.console import Console

    found = Console(highlight=False, soft_wrap=False)
    if found.width > WIDTH or not (found.is_terminal or "COLUMNS" in os.environ):
        found.width = WIDTH
    return found
