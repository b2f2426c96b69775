"""The command line application, and how its errors are reported."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from grpcerrors_router.errors import RouteError

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "grpcerrors-router"
EXAMPLES = """Examples:

\b
  grpcerrors-router serve --models models.toml
  grpcerrors-router status --watch
"""

_COMMANDS = {
    "serve": "serve:serve",
    "status": "view:status",
    "heals": "view:heals",
    "models": "view:models",
    "history": "view:history",
    "load": "models:load",
    "unload": "models:unload",
    "drain": "nodes:drain",
    "add-node": "nodes:add_node",
    "remove-node": "nodes:remove_node",
    "forgive": "nodes:forgive",
    "check": "config:check",
    "reload": "config:reload",
    "certs": "certs:certs",
}
"""Each command, with its module and function. The module also has its examples."""


def __getattr__(name: str) -> typer.Typer:
    """Return the application with all commands as `app`."""
    if name != "app":
        raise AttributeError(name)
    return build()


def build(only: str = "") -> typer.Typer:
    """Return the application: with one command if `only` names it, else with all.

    To prepare a command takes most of the time of a short one, such as `status`.
    """
    app = typer.Typer(
        help="Route model requests to the nodes that hold the models.",
        epilog=EXAMPLES,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for command in [only] if only in _COMMANDS else _COMMANDS:
        place, _, name = _COMMANDS[command].partition(":")
        module = importlib.import_module(f"grpcerrors_router.cli.{place}")
        examples = getattr(module, f"{name.upper()}_EXAMPLES")
        app.command(command, epilog=examples)(getattr(module, name))
    if only not in _COMMANDS:
        from grpcerrors_router.cli import token

        app.add_typer(token.app, name="token")
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"{PROGRAM} {version('grpcerrors-router')}")
        raise typer.Exit


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
    words = sys.argv[1:] if arguments is None else arguments
    completing = any(name.endswith("_COMPLETE") for name in os.environ)
    app = build(words[0] if words and not completing else "")
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
