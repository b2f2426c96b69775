"""The command line application, and how its errors are reported."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from grpcerrors_router.cli import config, models, nodes, serve, token, view
from grpcerrors_router.errors import RouteError

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "grpcerrors-router"
EXAMPLES = """Examples:

\b
  grpcerrors-router serve --models models.toml
  grpcerrors-router status --watch
"""

app = typer.Typer(
    help="Route model requests to the nodes that hold the models.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command(epilog=serve.EXAMPLES)(serve.serve)
app.command(epilog=view.STATUS_EXAMPLES)(view.status)
app.command(epilog=view.HEALS_EXAMPLES)(view.heals)
app.command(epilog=view.MODELS_EXAMPLES)(view.models)
app.command(epilog=view.HISTORY_EXAMPLES)(view.history)
app.command(epilog=models.LOAD_EXAMPLES)(models.load)
app.command(epilog=models.UNLOAD_EXAMPLES)(models.unload)
app.command(epilog=nodes.DRAIN_EXAMPLES)(nodes.drain)
app.command(epilog=nodes.ADD_EXAMPLES)(nodes.add_node)
app.command(epilog=nodes.REMOVE_EXAMPLES)(nodes.remove_node)
app.command(epilog=nodes.FORGIVE_EXAMPLES)(nodes.forgive)
app.command(epilog=config.CHECK_EXAMPLES)(config.check)
app.command(epilog=config.RELOAD_EXAMPLES)(config.reload)
app.add_typer(token.app, name="token")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"{PROGRAM} {version('grpcerrors-router')}")
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


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        result = app(arguments, prog_name=PROGRAM, standalone_mode=False)
    except typer.TyperException as error:  # bad usage
        return _report_usage(error)
    except RouteError as error:
        return _report(" ".join((error.details() or "").split()))
    except BrokenPipeError:  # the reader, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        # All mistakes in models.toml are reported together, each on a line.
        lines = str(error).splitlines()
        return _report(*lines) if hasattr(error, "mistakes") else _report(" ".join(lines))
    return result if isinstance(result, int) else 0


def _report_usage(error: Exception) -> int:
    message = str(getattr(error, "format_message", error.__str__)())
    if message.startswith("Usage:"):  # no command was given
        sys.stderr.write(f"{message}\n")
        return 2
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else PROGRAM
    said = " ".join(message.split()).rstrip(".")
    return _report(f"{said}{' See' if said.endswith('?') else '; see'} {command} --help")


def _report(*lines: str) -> int:
    """Write an error to stderr, without control characters."""
    shown = (
        "".join(each if each.isprintable() else " " if each.isspace() else "?" for each in line)
        for line in lines
    )
    sys.stderr.write("Error: " + "\n".join(shown) + "\n")
    return 2
