"""The command line: ``grpcerrors-backend NAME --listen 127.0.0.1:0``."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import structlog
import typer

from grpcerrors_backends.host.memory import stay_lean
from grpcerrors_backends.host.server import Config, Host, ListenError
from grpcerrors_backends.registry import CATALOGUE, MissingExtraError, UnknownBackendError, find

NAME = f"One of {', '.join(CATALOGUE)}; or module:Class of your own."


def serve(  # noqa: PLR0913, PLR0917 - the options of the command
    name: Annotated[str, typer.Argument(help=NAME)],
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 takes a free one.")],
    slots: Annotated[int, typer.Option(min=1, help="Models held at the same time.")] = 1,
    idle_ttl: Annotated[
        float | None, typer.Option(min=0, help="Unload a model after this many idle seconds.")
    ] = None,
    max_rss: Annotated[
        float | None, typer.Option(min=1, help="Unload models above this resident size, in MiB.")
    ] = None,
    router: Annotated[str | None, typer.Option(help="HOST:PORT of a router to join.")] = None,
    node_name: Annotated[str | None, typer.Option(help="This node's name there.")] = None,
    advertise: Annotated[
        str | None, typer.Option(help="Host at which the router reaches this node, if another.")
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds that running calls get at a stop.")
    ] = 30.0,
) -> None:
    """Serve a backend until SIGTERM or SIGINT; print one line when it is ready."""
    _log_to_stderr()
    stay_lean()
    try:
        config = Config(listen, slots, idle_ttl, max_rss, router, node_name, advertise, grace)
        model = find(name)
        host = Host(model, config)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: host.stop())
        host.run(lambda address: print(f"{model.name} ready on {address}", flush=True))  # noqa: T201
    except (UnknownBackendError, MissingExtraError, ListenError) as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(2) from error
    # The grace period is over: a thread that still loads or computes must not hold the process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def main() -> None:
    """Run the command line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(serve)
    app()


if __name__ == "__main__":
    main()
