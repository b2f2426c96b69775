"""The command `grpcerrors check`."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from grpcerrors.cli import _inputs, _options, _report
from grpcerrors.cli._connection import CommandError, Server
from grpcerrors.cli._probe import Target
from grpcerrors.cli._probe import check as run_check
from grpcerrors.cli._rpcs import SERVICE
from grpcerrors.cli._text import printable

if TYPE_CHECKING:
    from grpcerrors.cli._probe import Report

CONFORMING, NOT_CONFORMING, FAILED = 0, 1, 2

EXAMPLES = """Exit codes: 0 when every RPC that was called and is implemented answers with the
typed error, 1 when one does not, 2 when nothing could be checked.

Examples:

\b
  grpcerrors check 127.0.0.1:50051
  grpcerrors check gpu-1.lan:50051 --metadata 'authorization=Bearer TOKEN'
  grpcerrors check 127.0.0.1:50051 --service acme.Speech --method Say
"""


def check(  # noqa: PLR0913 - one for each option
    *,
    address: _options.Address,
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
    metadata: _options.Metadata = [],  # noqa: B006 - typer reads it
    tls_ca: _options.TlsCa = None,
    wait: _options.Wait = 5.0,
    timeout: Annotated[
        float,
        typer.Option(
            parser=_inputs.seconds, metavar="SECONDS", help="Wait this long for each answer."
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
    server = Server(address, metadata, tls_ca, wait, timeout)
    target = Target(server, service, method, every)
    try:
        report = asyncio.run(run_check(target))
    except CommandError as error:
        _stop(target, printable(str(error)), as_json=as_json)
    if as_json:
        _print_json(_report.as_json(target, report))
    else:
        _show(target, report, all_rows=all_rows)
    return CONFORMING if report.conforming else NOT_CONFORMING


def _stop(target: Target, why: str, *, as_json: bool) -> NoReturn:
    if as_json:
        _print_json({"version": 1, "address": target.server.address, "error": why})
    typer.echo(f"Error: {why}", err=True)
    raise typer.Exit(FAILED)


def _show(target: Target, report: Report, *, all_rows: bool) -> None:
    console = Console(highlight=False)
    console.width = min(console.width, _report.WIDTH) if console.is_terminal else _report.WIDTH
    for part in _report.as_text(target, report, all_rows=all_rows):
        console.print(part, crop=False, soft_wrap=getattr(part, "no_wrap", None))


def _print_json(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, indent=2))
