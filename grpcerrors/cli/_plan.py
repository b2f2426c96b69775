"""Which RPCs a check calls: only those that are known to change nothing, or that are named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from grpcerrors.cli import _reflection
from grpcerrors.cli._connection import CommandError
from grpcerrors.cli._protocols import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grpcerrors.cli._findings import Target
    from grpcerrors.cli._protocols import Known
    from grpcerrors.cli._reflection import Offer

REFLECTION, BUILT_IN, COMMAND_LINE = "server reflection", "built-in list", "command line"

_ROUTER = "fleet.v1.Fleet"


class Plan(NamedTuple):
    """Which RPCs of one service to call, from which list, and which to leave alone."""

    service: str
    known: Known | None
    source: str
    rpcs: list[str]
    uncalled: list[str]


async def plan(channel: Any, target: Target) -> list[Plan]:
    """Return what to call, for each service to check.

    Raises:
        CommandError: the server is a router or does not offer the service, or it is unknown which
            of its RPCs need a model.
    """
    service, known = target.service, target.known
    if target.methods:
        known = known or (_of_service(service) if service else _of_method(target.methods[0]))
        service = service or (known or PROTOCOLS["localai"]).protocol.service
        return [Plan(service, known, COMMAND_LINE, list(dict.fromkeys(target.methods)), [])]
    named = service or (known.protocol.service if known else "")
    wanted = [named] if named else [one.protocol.service for one in PROTOCOLS.values()]
    try:
        offer = await _reflection.ask(channel, target.server, *wanted)
    except _reflection.RefusedError:  # so are the calls, and their rows say what to do
        offer = None
    if offer is None:
        return [_without_reflection(target, named or wanted[0])]
    if _ROUTER in offer.services:
        raise CommandError(router(target))
    # A server may describe services that it knows and does not offer.
    found = [one for one in wanted if one in offer.services and offer.methods(one) is not None]
    if not found:
        what = named or f"a protocol that this command knows ({' or '.join(wanted)})"
        raise CommandError(
            f"{target.server.address} does not offer {what}; its reflection lists"
            f" {', '.join(offer.services)}: choose one with --service, and name RPCs with --method"
        )
    return [_reflected(target, service, offer) for service in found]


def router(target: Target) -> str:
    """Return why a router is not checked."""
    return (
        f"{target.server.address} is a router, which loads models by itself: check the nodes behind"
        " it, which grpcerrors-router status lists"
    )


def _of_service(service: str) -> Known | None:
    return next((one for one in PROTOCOLS.values() if one.protocol.service == service), None)


def _of_method(method: str) -> Known | None:
    return next((one for one in PROTOCOLS.values() if method in one.rpcs), None)


def _without_reflection(target: Target, service: str) -> Plan:
    known = target.known or _of_service(service)
    if known is None:
        raise CommandError(
            f"the RPCs of {service} are unknown, because {target.server.address} has no server"
            " reflection: name those that need a model with --method"
        )
    return Plan(service, known, BUILT_IN, sorted(known.called), [])


def _reflected(target: Target, service: str, offer: Offer) -> Plan:
    known = target.known or _of_service(service)
    methods = offer.methods(service) or []
    if target.every:
        control = set().union(*(one.rpcs - one.called for one in _possible(known)))
        return Plan(service, known, REFLECTION, sorted(set(methods) - control), [])
    if known is None:
        raise CommandError(
            f"it is unknown which RPCs of {service} need a model, and some may change something:"
            " name those that need one with --method, or call all with --all. It offers"
            f" {', '.join(sorted(methods)) or 'none'}"
        )
    called = sorted(known.called.intersection(methods))
    return Plan(service, known, REFLECTION, called, sorted(set(methods) - known.rpcs))


def _possible(known: Known | None) -> Iterable[Known]:
    return [known] if known else PROTOCOLS.values()
