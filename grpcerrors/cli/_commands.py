"""The commands: what they take and print, and how they exit."""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import grpc
import typer
from grpc.aio import AioRpcError, Metadata
from rich.console import Console

from grpcerrors._explain import explain as explain_error
from grpcerrors.cli import _inputs, _report
from grpcerrors.cli._probe import CannotCheckError, Report, Target
from grpcerrors.cli._probe import check as run_check

NOT_CONFORMING, UNREACHABLE = 1, 2

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Explain errors of model backends, and check whether a backend speaks the contract.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"grpcerrors {version('grpcerrors')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Say which version."),
    ] = False,
) -> None:
    pass


@app.command()
def explain(
    *,
    code: Annotated[
        str,
        typer.Option(parser=_inputs.status_code, metavar="CODE", help="The status code."),
    ],
    message: Annotated[str, typer.Option(help="The status message.")] = "",
    details_bin: Annotated[
        list[bytes],
        typer.Option(
            parser=_inputs.unbase64,
            metavar="BASE64",
            help="A value of the trailer grpc-status-details-bin; repeat it for several.",
        ),
    ] = [],  # noqa: B006 - typer reads it
) -> None:
    """Say what an error means to a router, and which rung decided."""
    trailers = Metadata(*(("grpc-status-details-bin", value) for value in details_bin))
    error = AioRpcError(grpc.StatusCode[code], Metadata(), trailers, details=message)
    for line in explain_error(error).splitlines():
        typer.echo(_report.printable(line))


@app.command()
def check(
    *,
    address: Annotated[
        str, typer.Argument(parser=_inputs.address, metavar="HOST:PORT", help="The backend.")
    ],
    service: Annotated[
        str, typer.Option(parser=_inputs.service, metavar="NAME", help="The full name.")
    ] = "backend.Backend",
    method: Annotated[
        list[str],
        typer.Option(
            parser=_inputs.method,
            metavar="NAME",
            help="An RPC to call, may be repeated; else server reflection finds them, or the"
            " built-in list of the backend protocol.",
        ),
    ] = [],  # noqa: B006 - typer reads it
    metadata: Annotated[
        list[_inputs.Metadatum],
        typer.Option(
            parser=_inputs.metadatum,
            metavar="KEY=VALUE",
            help="A header to send with each call, may be repeated.",
        ),
    ] = [],  # noqa: B006 - typer reads it
    tls_ca: Annotated[
        bytes | None,
        typer.Option(
            parser=_inputs.authority,
            metavar="FILE",
            help="Connect over TLS and trust these certificates (PEM).",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            parser=_inputs.seconds,
            metavar="SECONDS",
            help="For connecting, and for each call.",
        ),
    ] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a freshly started backend, no model loaded: does each RPC say so, typed?

    Each inference RPC is called with an empty message. Exits with 0 when every implemented RPC
    answers with the typed error, 1 when not, 2 when the server cannot be reached.
    """
    target = Target(address, service, method, metadata, tls_ca, timeout)
    try:
        report = asyncio.run(run_check(target))
    except CannotCheckError as error:
        _stop(target, _report.printable(str(error)), as_json=as_json)
    _show(target, report, as_json=as_json)
    if not report.conforming:
        raise typer.Exit(NOT_CONFORMING)


def _stop(target: Target, why: str, *, as_json: bool) -> NoReturn:
    if as_json:
        _print_json({"version": 1, "address": target.address, "error": why})
    typer.echo(f"Error: {why}", err=True)
    raise typer.Exit(UNREACHABLE)


def _show(target: Target, report: Report, *, as_json: bool) -> None:
    if as_json:
        _print_json(_report.as_json(target, report))
        return
    console = Console(highlight=False)
    console.width = min(console.width, _report.WIDTH) if console.is_terminal else _report.WIDTH
    for part in _report.as_text(target, report):
        console.print(part)


def _print_json(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, indent=2))
