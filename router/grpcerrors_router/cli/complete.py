"""Names that the shell completes. The gateway is asked for them, and must answer at once."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import typer  # noqa: TC002 - typer reads annotations at run time

from grpcerrors_router.cli.gateway import Gateway, open_gateway

if TYPE_CHECKING:
    from grpcerrors_protocol.fleet_pb2 import FleetState

PATIENCE = 1.0
"""Seconds that a person who has pressed Tab waits at most."""


def models(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the models that begin with what was typed; nothing if no gateway answers."""
    return [each.model for each in _fleet(ctx).models if each.model.startswith(incomplete)]


def nodes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the nodes that begin with what was typed; nothing if no gateway answers."""
    return [each.name for each in _fleet(ctx).nodes if each.name.startswith(incomplete)]


def _fleet(ctx: typer.Context) -> FleetState | Any:
    from grpcerrors_protocol.fleet_pb2 import FleetState, GetFleetRequest
    from grpcerrors_protocol.fleet_pb2_grpc import OperatorStub

    given = {field.name: ctx.params.get(field.name) for field in fields(Gateway)}
    gateway = Gateway(**{name: value for name, value in given.items() if value is not None})
    try:
        with open_gateway(gateway, PATIENCE) as channel:
            return OperatorStub(channel).GetFleet(GetFleetRequest(), timeout=PATIENCE)
    except (OSError, ValueError):  # a shell can only show nothing
        return FleetState()
