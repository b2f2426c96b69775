"""The command line of the router: serve, look, and operate."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import typer

from grpcerrors_router.cli import models, nodes, serve, view
from grpcerrors_router.errors import RouteError

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "grpcerrors-router"

app = typer.Typer(
    help="Route model requests to the nodes that hold the models, and heal what is stale.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.command("status")(view.status)
app.command("heals")(view.heals)
app.command("add-node")(nodes.add_node)
app.command("remove-node")(nodes.remove_node)
app.command("drain")(nodes.drain)
app.command("load")(models.load)
app.command("unload")(models.unload)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 2 after one line on stderr that says what to do."""
    try:
        result = app(arguments, prog_name=PROGRAM, standalone_mode=False)
    except typer.TyperException as error:  # bad usage, as typer finds it
        format_message = getattr(error, "format_message", error.__str__)
        return _say(format_message(), hint=f" (see {PROGRAM} --help)")
    except RouteError as error:
        return _say(error.details() or "")
    except BrokenPipeError:  # the reader, e.g. head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        return _say(str(error))
    except KeyboardInterrupt:
        return 130
    return result if isinstance(result, int) else 0


def _say(message: str, hint: str = "") -> int:
    is_help = message.startswith("Usage:")  # for want of a command
    sys.stderr.write(f"{message}\n" if is_help else " ".join(message.split()) + f"{hint}\n")
    return 2
