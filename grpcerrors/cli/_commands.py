"""The commands: what they take and print, and how they exit."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated, Any

import grpc
import typer
from grpc.aio import AioRpcError, Metadata

from grpcerrors import explain as explain_error
from grpcerrors._wire import DETAILS_KEY
from grpcerrors.cli import _call, _check, _health, _inputs
from grpcerrors.cli._connection import CommandError
from grpcerrors.cli._text import printable

PROGRAM = "grpcerrors"
FAILED = 2

EXAMPLES = """Examples:

\b
  grpcerrors check 127.0.0.1:50051
  grpcerrors call 127.0.0.1:50051 backend.Backend/Status
  grpcerrors explain --code 9 --message 'x: model not loaded'
"""
EXPLAIN_EXAMPLES = """Examples:

\b
  grpcerrors explain --code 9 --message 'x: model not loaded'
  grpcerrors explain --code 2 --details-bin CAkSE3g6IG1vZGVsIG5vdCBsb2FkZWQ
"""
app = typer.Typer(
    help="Check whether a model backend speaks the contract, call it, and explain its errors.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def run() -> int:
    """Run one command; return its exit code."""
    try:
        result = app(prog_name=PROGRAM, standalone_mode=False)
    except CommandError as error:
        sys.stderr.write(f"Error: {printable(str(error))}\n")
        return FAILED
    except OSError as error:  # files to read are reported where they are read
        sys.stderr.write(f"Error: cannot write the output: {error.strerror}\n")
        return FAILED
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
    said = printable(" ".join(message.split())).rstrip(".")
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


app.command(epilog=_check.EXAMPLES)(_check.check)
app.command(epilog=_call.EXAMPLES)(_call.call)
app.command(epilog=_health.EXAMPLES)(_health.health)


@app.command(epilog=EXPLAIN_EXAMPLES)
def explain(
    *,
    code: Annotated[
        str,
        typer.Option(
            parser=_inputs.status_code,
            metavar="CODE",
            help="Read this status code, a name or a number.",
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
    trailer: Annotated[
        list[_inputs.Metadatum],
        typer.Option(
            parser=_inputs.metadatum,
            metavar="KEY=VALUE",
            help="Read this trailer, such as grpcerrors-unexecuted; repeat it for several.",
        ),
    ] = [],  # noqa: B006 - typer reads it
) -> None:
    """Explain what an error means to a router, and why."""
    trailers = Metadata(*((DETAILS_KEY, value) for value in details_bin), *trailer)
    error = AioRpcError(grpc.StatusCode[code], Metadata(), trailers, details=message)
    for line in explain_error(error).splitlines():
        typer.echo(printable(line))
