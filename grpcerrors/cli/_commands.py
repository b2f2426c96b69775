"""The commands: what they take and print, and how they exit."""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import grpc
import typer
from grpc.aio import AioRpcError, Metadata
from rich.console import Console

from grpcerrors import explain as explain_error
from grpcerrors._wire import DETAILS_KEY
from grpcerrors.cli import _inputs, _report
from grpcerrors.cli._connection import CannotCheckError, Target
from grpcerrors.cli._probe import check as run_check
from grpcerrors.cli._rpcs import SERVICE

if TYPE_CHECKING:
    from grpcerrors.cli._probe import Report

PROGRAM = "grpcerrors"
CONFORMING, NOT_CONFORMING, FAILED = 0, 1, 2

EXAMPLES = """Examples:

\b
  grpcerrors check 127.0.0.1:50051
  grpcerrors explain --code 9 --message 'x: model not loaded'
"""
EXPLAIN_EXAMPLES = """Examples:

\b
  grpcerrors explain --code 9 --message 'x: model not loaded'
  grpcerrors explain --code 2 --details-bin CAkSE3g6IG1vZGVsIG5vdCBsb2FkZWQ
"""
CHECK_EXAMPLES = """Exit codes: 0 when every RPC that was called and is implemented answers with the
typed error, 1 when one does not, 2 when nothing could be checked.

Examples:

\b
  grpcerrors check 127.0.0.1:50051
  grpcerrors check gpu-1.lan:50051 --metadata 'authorization=Bearer TOKEN'
  grpcerrors check 127.0.0.1:50051 --service acme.Speech --method Say
"""

app = typer.Typer(
    help="Explain errors of model backends, and check whether a backend speaks the contract.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def run() -> int:
    """Run one command; return its exit code."""
    try:
        result = app(prog_name=PROGRAM, standalone_mode=False)
    except Exception as error:
        # What typer raises for bad usage is click's in older versions, and its own in newer ones.
        if not hasattr(error, "format_message"):
            raise
        return _report_usage(error)
    return result if isinstance(result, int) else 0


def _report_usage(error: Any) -> int:
    message = str(error.format_message())
    if message.startswith("Usage:"):  # there was no command
        sys.stderr.write(f"{message}\n")
        return FAILED
    command = error.ctx.command_path if getattr(error, "ctx", None) else PROGRAM
    said = _report.printable(" ".join(message.split())).rstrip(".")
    see = " See" if said.endswith("?") else "; see"
    sys.stderr.write(f"Error: {said}{see} {command} --help\n")
    return FAILED


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {version('grpcerrors')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command(epilog=EXPLAIN_EXAMPLES)
def explain(
    *,
    code: Annotated[
        str,
        typer.Option(
            parser=_inputs.status_code,
            metavar="CODE",
            help="Read this status code, name or number.",
        ),
    ],
    message: Annotated[str, typer.Option(metavar="TEXT", help="Read this status message.")] = "",
    details_bin: Annotated[
        list[bytes],
        typer.Option(
            parser=_inputs.unbase64,
            metavar="BASE64",
            help="Read this value of the trailer grpc-status-details-bin; repeat it for several.",
        ),
    ] = [],  # noqa: B006 - typer reads it
) -> None:
    """Explain what an error means to a router, and why."""
    trailers = Metadata(*((DETAILS_KEY, value) for value in details_bin))
    error = AioRpcError(grpc.StatusCode[code], Metadata(), trailers, details=message)
    for line in explain_error(error).splitlines():
        typer.echo(_report.printable(line))


@app.command(epilog=CHECK_EXAMPLES)
def check(  # noqa: PLR0913 - one for each option
    *,
    address: Annotated[
        str,
        typer.Argument(
            parser=_inputs.address, metavar="HOST:PORT", help="Check the backend at this address."
        ),
    ],
    service: Annotated[
        str,
        typer.Option(
            parser=_inputs.service, metavar="NAME", help="Check the service of this name."
        ),
    ] = SERVICE,
    method: Annotated[
        list[str],
        typer.Option(
            parser=_inputs.method,
            metavar="NAME",
            help="Call this RPC; repeat it for several. Without it, call the inference RPCs of"
            f" {SERVICE} that server reflection lists, or all of them without reflection.",
        ),
    ] = [],  # noqa: B006 - typer reads it
    every: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Call every RPC that server reflection lists, except control-plane ones such as"
            " LoadModel. They may change something.",
        ),
    ] = False,
    metadata: Annotated[
        list[_inputs.Metadatum],
        typer.Option(
            parser=_inputs.metadatum,
            metavar="KEY=VALUE",
            help="Send this header with each call; repeat it for several.",
        ),
    ] = [],  # noqa: B006 - typer reads it
    tls_ca: Annotated[
        bytes | None,
        typer.Option(
            parser=_inputs.authority,
            metavar="FILE",
            help="Connect over TLS and trust the certificates in this PEM file.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            parser=_inputs.seconds,
            metavar="SECONDS",
            help="Wait this long for the server to come up, and for each call.",
        ),
    ] = 5.0,
    all_rows: Annotated[
        bool, typer.Option("--all-rows", help="Show RPCs that are not implemented, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Check that a backend without a model reports it in each RPC.

    Start the backend, load no model, and run this. It calls each RPC that needs a model with an
    empty message, and expects the typed error. It calls nothing that could change something,
    unless you name it.
    """
    target = Target(address, service, method, every, metadata, tls_ca, timeout)
    try:
        report = asyncio.run(run_check(target))
    except CannotCheckError as error:
        _stop(target, _report.printable(str(error)), as_json=as_json)
    if as_json:
        _print_json(_report.as_json(target, report))
    else:
        _show(target, report, all_rows=all_rows)
    return CONFORMING if report.conforming else NOT_CONFORMING


def _stop(target: Target, why: str, *, as_json: bool) -> NoReturn:
    if as_json:
        _print_json({"version": 1, "address": target.address, "error": why})
    typer.echo(f"Error: {why}", err=True)
    raise typer.Exit(FAILED)


def _show(target: Target, report: Report, *, all_rows: bool) -> None:
    console = Console(highlight=False)
    console.width = min(console.width, _report.WIDTH) if console.is_terminal else _report.WIDTH
    for part in _report.as_text(target, report, all_rows=all_rows):
        console.print(part, crop=False, soft_wrap=getattr(part, "no_wrap", None))


def _print_json(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, indent=2))
