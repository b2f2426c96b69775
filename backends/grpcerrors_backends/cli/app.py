"""The command ``grpcerrors-backend``, which serves one backend until it is stopped."""

from __future__ import annotations

import functools
import os
import signal
import sys
from importlib.metadata import version
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from grpcerrors_backends.registry import CATALOGUE, UnusableBackendError, find
from grpcerrors_protocol.logs import Format, configure
from grpcerrors_protocol.readiness import report_ready

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

PROGRAM = "grpcerrors-backend"
EXAMPLES = """Examples:

\b
  grpcerrors-backend transcriber --listen 127.0.0.1:50051
  grpcerrors-backend mybackend:MyModel --router 127.0.0.1:50050
  grpcerrors-backend echo --listen 10.0.0.2:50051 --router 10.0.0.1:50050 \\
      --tls-cert node.pem --tls-key node.key --tls-ca ca.pem \\
      --router-token-file node.token
"""

app = typer.Typer(
    add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None, help=None
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {version('grpcerrors-backends')}")
        raise typer.Exit


@app.command(no_args_is_help=True, epilog=EXAMPLES)
def serve(  # noqa: PLR0913 - the options of the command
    name: Annotated[
        str,
        typer.Argument(
            metavar="BACKEND",
            autocompletion=lambda: list(CATALOGUE),
            help=f"Serve this backend: {', '.join(CATALOGUE)}, or your own as module:Class "
            "(the current folder is searched too).",
        ),
    ],
    *,
    listen: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Listen on this address; port 0 picks a free port."),
    ] = "127.0.0.1:0",
    slots: Annotated[
        int, typer.Option(min=1, metavar="N", help="Keep up to this many models loaded.")
    ] = 1,
    idle_ttl: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Unload a model that has not been called for this long.",
            show_default="never",
        ),
    ] = None,
    max_rss: Annotated[
        float | None,
        typer.Option(
            min=1,
            metavar="MIB",
            help="Unload models while the process uses more memory than this.",
            show_default="no limit",
        ),
    ] = None,
    max_calls: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Answer RESOURCE_EXHAUSTED when this many calls are running or waiting.",
        ),
    ] = 8192,
    max_buffered: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="MIB",
            help="Answer RESOURCE_EXHAUSTED when the requests being served are larger together.",
        ),
    ] = 512,
    router: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Join the router at this address.", show_default="none"
        ),
    ] = None,
    node_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Join the router under this name.",
            show_default="derived from backend, machine and address",
        ),
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="Tell the router to reach this node at HOST.",
            show_default="the host of --listen",
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Wait this long after SIGTERM for running calls to end."
        ),
    ] = 30.0,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Let requests and load options read and write files in this folder; repeat it "
            "for several.",
            show_default="no files",
        ),
    ] = None,
    secrets: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Let load options name key files in this folder.",
            show_default="no key files",
        ),
    ] = None,
    secret_env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Let load options name this environment variable as a key; repeat it for several.",
            show_default="no variables",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Serve TLS with the certificate in this PEM file, and present it to the router.",
            show_default="plain text",
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Use the private key in this PEM file for the certificate."
        ),
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Serve only callers with a certificate that an authority in this PEM file signed.",
        ),
    ] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Reach the router over TLS, and trust the authorities in this PEM file.",
            show_default="with --tls-cert, those that the system trusts",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Serve only callers that send a token of this file, which has one on each line.",
            show_default="LOCALAI_GRPC_AUTH_TOKEN",
        ),
    ] = None,
    router_token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Send the token in this file to the router."),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Let other machines reach the node without TLS and without a token."
        ),
    ] = False,
    traces: Annotated[
        bool,
        typer.Option(
            "--traces",
            help="Send traces over OTLP; the OTEL_* variables say where and how.",
        ),
    ] = False,
    log_format: Annotated[
        Format | None,
        typer.Option(
            help="Write the log to stderr in this format.",
            show_default="console on a terminal, else json",
        ),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Serve a model backend over gRPC until SIGTERM or SIGINT.

    Prints "BACKEND ready on HOST:PORT" once it accepts calls. Starts without a model: a router or
    any other client loads one with the RPC LoadModel.
    """
    # Silence gRPC's own error lines; ours name the option. gRPC reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from grpcerrors_backends.files import NoFolderError
    from grpcerrors_backends.host.membership import AddressError
    from grpcerrors_backends.host.memory import stay_lean
    from grpcerrors_backends.host.server import Config, Host, ListenError
    from grpcerrors_backends.host.service import NotARpcError
    from grpcerrors_protocol.exposure import ExposedError
    from grpcerrors_protocol.tls import TlsError, TlsFiles
    from grpcerrors_protocol.token_file import TokenFileError

    configure(form=log_format)
    stay_lean()
    if (folder := os.getcwd()) not in sys.path:  # noqa: PTH109 - sys.path has strings
        sys.path.insert(0, folder)
    config = Config(
        listen=listen,
        slots=slots,
        idle_ttl=idle_ttl,
        max_rss=max_rss,
        router=router,
        node_name=node_name,
        advertise=advertise,
        grace=grace,
        max_calls=max_calls,
        max_buffered=max_buffered,
        files=tuple(files or ()),
        secrets=secrets,
        secret_env=tuple(secret_env or ()),
        tls=TlsFiles(tls_cert, tls_key, tls_client_ca, tls_ca),
        insecure=insecure,
        traces=_provider(node_name or f"{name}-{os.getpid()}") if traces else None,
        token_file=token_file,
        router_token_file=router_token_file,
    )
    try:
        model = find(name)
        host = Host(model, config)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: host.stop())
        host.run(functools.partial(_ready, model.name))
        if config.traces is not None:
            from grpcerrors_protocol.tracing import finish

            finish(config.traces)
    except (
        UnusableBackendError, AddressError, ListenError, NoFolderError, NotARpcError,
        ExposedError, TlsError, TokenFileError,
    ) as error:  # fmt: skip
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from error
    # The grace period is over: a thread that is still loading or computing must not delay the exit.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _provider(instance: str) -> TracerProvider:
    """Return where spans go. Ends the program if OpenTelemetry is not installed."""
    try:
        from grpcerrors_protocol.tracing import provider

        return provider("grpcerrors-backend", instance)
    except ImportError as error:
        typer.echo(
            "Error: --traces needs OpenTelemetry; install it: "
            "pip install 'grpcerrors-backends[otel]'",
            err=True,
        )
        raise typer.Exit(2) from error


def _ready(name: str, address: str) -> None:
    typer.echo(f"{name} ready on {address}")
    report_ready()


def run() -> int:
    """Run the command line; return its exit code."""
    try:
        result = app(prog_name=PROGRAM, standalone_mode=False)
    except Exception as error:
        # What typer raises for bad usage is click's in older versions, and its own in newer ones.
        said = getattr(error, "format_message", None)
        if said is None:
            raise
        message = str(said())
        if message.startswith("Usage:"):  # there was no argument
            typer.echo(message, err=True)
        else:
            line = " ".join(message.split()).rstrip(".")
            see = " See" if line.endswith("?") else "; see"
            typer.echo(f"Error: {line}{see} {PROGRAM} --help", err=True)
        return 2
    return result if isinstance(result, int) else 0
