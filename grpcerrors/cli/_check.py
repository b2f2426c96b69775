"""The command `grpcerrors check`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import typer

from grpcerrors.cli import _inputs, _options, _table
from grpcerrors.cli._connection import CommandError, Server
from grpcerrors.cli._findings import Target, conforms
from grpcerrors.cli._formats import FORMATS
from grpcerrors.cli._probe import NO_MODEL
from grpcerrors.cli._probe import check as run_check
from grpcerrors.cli._protocols import PROTOCOLS

CONFORMING, NOT_CONFORMING = 0, 1

EXAMPLES = """Exit codes: 0 when every RPC that was called and is implemented answers with the
typed error, 1 when one does not, 2 when nothing could be checked.

Examples:

\b
  grpcerrors check 127.0.0.1:50051
  grpcerrors check gpu-1.lan:50051 --metadata 'authorization=Bearer TOKEN'
  grpcerrors check 127.0.0.1:50051 --service acme.Speech --method Say
"""


@_options.connects
def check(  # noqa: PLR0913 - one for each option
    *,
    server: Server,
    protocol: Annotated[
        Literal["localai", "kserve"] | None,
        typer.Option(
            help="Check the service of this protocol. Without it, check each known one that server"
            " reflection lists, or that of LocalAI without reflection.",
        ),
    ] = None,
    service: Annotated[
        str | None,
        typer.Option(
            parser=_inputs.service,
            metavar="NAME",
            help="Check the service of this name; with --protocol, one with the same RPCs.",
        ),
    ] = None,
    method: Annotated[
        list[str],
        typer.Option(
            parser=_inputs.method,
            metavar="NAME",
            help="Call this RPC, whatever it does; repeat it for several.",
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
    model: Annotated[
        str | None,
        typer.Option(
            parser=_inputs.model,
            metavar="NAME",
            help="Ask for this model, which must not be loaded. Without it, KServe backends are"
            f" asked for {NO_MODEL}.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            parser=_inputs.seconds, metavar="SECONDS", help="Wait this long for each answer."
        ),
    ] = 5.0,
    all_rows: Annotated[
        bool,
        typer.Option(
            "--all-rows", help="Show RPCs that are not implemented, too. JSON always has them."
        ),
    ] = False,
    form: Annotated[
        Literal["table", "json", "junit", "markdown"],
        typer.Option("--format", help="Print the report in this format."),
    ] = "table",
) -> int:
    """Check that a backend without a model reports it in each RPC.

    Start the backend, load no model, and run this. It calls each RPC that needs a model, and
    expects the typed error. It calls nothing that could change anything, unless you name it.
    """
    server = server._replace(timeout=timeout)
    known = PROTOCOLS[protocol] if protocol else None
    target = Target(server, service or "", known, method, every, model or "")
    try:
        reports = asyncio.run(run_check(target))
    except CommandError as error:
        if form != "table":
            typer.echo(FORMATS[form][1](str(error), server.address))
        raise
    if form == "table":
        _table.show(reports, server.address, all_rows=all_rows)
    else:
        typer.echo(FORMATS[form][0](reports, server.address, all_rows))
    return CONFORMING if conforms(reports) else NOT_CONFORMING
