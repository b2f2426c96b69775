"""The command `serve`, which runs the gateway until SIGTERM or SIGINT."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import Annotated

import typer

from grpcerrors_protocol.logs import Format, Level
from grpcerrors_router.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_REGISTRY,
    Registry,
    check_registry_url,
    check_traces,
    database_errors,
)
from grpcerrors_router.validation import forwardable, is_name, split_address

SERVE_EXAMPLES = """Examples:

\b
  grpcerrors-router serve --models models.toml
  grpcerrors-router serve --models models.toml --http 127.0.0.1:8080 \\
      --metrics 127.0.0.1:9100
  grpcerrors-router serve --models models.toml --listen 10.0.0.1:50050 \\
      --tls-cert router.pem --tls-key router.key --tls-ca ca.pem \\
      --tokens tokens.toml --registry postgresql://router@db/router
"""


class OnStale(StrEnum):
    """What the router does with a request that met a stale replica."""

    RETRY = "retry"
    RETURN = "return"
    OFF = "off"


def serve(  # noqa: PLR0913 - the options of the command
    *,
    models: Annotated[
        Path, typer.Option(metavar="FILE", help="Read the models from this TOML file.")
    ],
    listen: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Serve on this address; port 0 takes a free port."),
    ] = DEFAULT_ADDRESS,
    registry: Registry = DEFAULT_REGISTRY,
    on_stale: Annotated[
        OnStale,
        typer.Option(
            help="When a replica is stale, heal and retry the request (retry), heal and return the "
            "error (return), or only return the error (off)."
        ),
    ] = OnStale.RETRY,
    metrics_at: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="HOST:PORT",
            help="Serve Prometheus metrics on this address.",
            show_default="none",
        ),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve a live page for browsers on this address. It shows what is wrong and what "
            "to do, and has buttons to load, unload, drain and forgive.",
            show_default="none",
        ),
    ] = None,
    traces: Annotated[
        bool,
        typer.Option(
            "--traces",
            help="Send traces over OTLP; the OTEL_* variables say where and how.",
        ),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Use this name in the registry that routers share.",
            show_default="random",
        ),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Ask callers, nodes and operators for a token of this file; make them with "
            "grpcerrors-router token new.",
            show_default="ask nobody",
        ),
    ] = None,
    node_token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Send the token in this file to nodes that were not added with another one.",
            show_default="no token",
        ),
    ] = None,
    secrets: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Find the tokens of add-node --node-token-file in this folder.",
            show_default="none",
        ),
    ] = None,
    forward_header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Forward this header to nodes, such as cookie, which they do not get otherwise; "
            "repeat it for several.",
            show_default="none",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Serve TLS with the certificate in this PEM file, and present it to nodes.",
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
            help="Trust nodes whose certificate an authority in this PEM file signed, and refuse "
            "nodes without TLS.",
            show_default="those that the system trusts",
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Let other machines reach ports without TLS and without tokens."
        ),
    ] = False,
    grace: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Let calls in flight run this long after SIGTERM."
        ),
    ] = 30.0,
    log_level: Annotated[
        Level, typer.Option(help="Log events of this level and above.")
    ] = Level.INFO,
    log_format: Annotated[
        Format | None,
        typer.Option(
            help="Write the log to stderr in this format.",
            show_default="console on a terminal, else json",
        ),
    ] = None,
) -> None:
    """Serve the gateway on one port.

    Prints "router ready on HOST:PORT" when it accepts calls. Runs until SIGTERM or SIGINT.
    """
    from grpcerrors_protocol.exposure import Protection
    from grpcerrors_protocol.tls import TlsFiles
    from grpcerrors_router.cli.serving import Server, run
    from grpcerrors_router.security.node_tokens import node_tokens

    split_address(listen, "--listen", DEFAULT_ADDRESS)
    at = None if metrics_at is None else split_address(metrics_at, "--metrics", "127.0.0.1:9100")
    page_at = None if http is None else split_address(http, "--http", "127.0.0.1:8080")
    if name is not None and not is_name(name):
        raise ValueError("--name must be 1 to 255 printable characters")
    check_registry_url(registry)
    if traces:
        check_traces()
    server = Server(
        models=models,
        registry=registry,
        name=name or "",
        listen=listen,
        on_stale=on_stale.value,
        metrics_at=at,
        page_at=page_at,
        traces=traces,
        tokens=tokens,
        node_tokens=node_tokens(node_token_file, secrets),
        forward=tuple(map(forwardable, forward_header or ())),
        grace=grace,
        tls=TlsFiles(tls_cert, tls_key, tls_client_ca, tls_ca),
        protection=Protection(
            tls=tls_cert is not None,
            clients=tls_client_ca is not None,
            tokens=tokens is not None,
            insecure=insecure,
        ),
    )
    with database_errors(registry):
        run(server, log_level, log_format)
