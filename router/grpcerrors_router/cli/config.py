"""The commands `check` and `reload`, about the configuration."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from grpcerrors_router.cli.common import AsJson, print_json
from grpcerrors_router.cli.gateway import Gateway, open_gateway, uses_gateway

if TYPE_CHECKING:
    from grpcerrors_protocol.fleet_pb2 import ReloadReply

CHECK_EXAMPLES = """Example:

\b
  grpcerrors-router check models.toml
"""
RELOAD_EXAMPLES = """Example:

\b
  grpcerrors-router reload
"""


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Check this models.toml.")],
) -> int:
    """List all mistakes in a models.toml.

    Their lines are quoted as they are, so a secret in one of them is shown. The exit code is 1 if
    there are mistakes.
    """
    from grpcerrors_router.config.check import check_models

    mistakes, models = check_models(file)
    for mistake in mistakes:
        typer.echo(mistake.shown(str(file)))
    if mistakes:
        count = len(mistakes)
        typer.echo(f"{count} mistake{'s' * (count > 1)} in {file}", err=True)
        return 1
    from grpcerrors_router.config.models_toml import shared_identities

    for identity, names in shared_identities(models).items():
        typer.echo(
            f'Warning: {", ".join(names)} are all loaded as "{identity}", so requests must name '
            "one of them by x-model-id",
            err=True,
        )
    typer.echo(f"{file}: {len(models)} model{'s' * (len(models) != 1)}, no mistakes")
    return 0


@uses_gateway
def reload(as_json: AsJson = False, *, gateway: Gateway) -> int:
    """Make the router read models.toml again.

    It reads its tokens, too. A file with mistakes changes nothing; they are listed, and the exit
    code is 1. SIGHUP does the same, and logs the mistakes.
    """
    from grpcerrors_protocol.fleet_pb2 import ReloadRequest
    from grpcerrors_protocol.fleet_pb2_grpc import OperatorStub

    with open_gateway(gateway) as channel:
        reply = OperatorStub(channel).Reload(ReloadRequest(), timeout=30)
    if as_json:
        print_json(reply)
    else:
        _show(reply)
    return 1 if reply.mistakes else 0


def _show(reply: ReloadReply) -> None:
    if reply.mistakes:
        typer.echo("nothing was changed:", err=True)
        for mistake in reply.mistakes:
            typer.echo(f"  {mistake}", err=True)
        return
    parts = [
        f"{what} {', '.join(names)}"
        for what, names in (
            ("added", reply.added),
            ("changed", reply.changed),
            ("removed", reply.removed),
        )
        if names
    ]
    tokens = ", and the tokens" if reply.tokens else ""
    typer.echo(f"read models.toml{tokens}: {'; '.join(parts) or 'no model has changed'}")
