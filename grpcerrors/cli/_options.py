"""Arguments and options that several commands have."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grpcerrors.cli import _inputs
from grpcerrors.cli._connection import Server, Trust

if TYPE_CHECKING:
    from collections.abc import Callable

Address = Annotated[
    str,
    typer.Argument(
        parser=_inputs.address, metavar="HOST:PORT", help="Talk to the server at this address."
    ),
]
Metadata = Annotated[
    list[_inputs.Metadatum],
    typer.Option(
        parser=_inputs.metadatum,
        metavar="KEY=VALUE",
        help="Send this header with each call; repeat it for several.",
    ),
]
Tls = Annotated[
    bool,
    typer.Option(
        "--tls", help="Connect over TLS, and trust the authorities that the system trusts."
    ),
]
TlsCa = Annotated[
    _inputs.Pem | None,
    typer.Option(
        parser=_inputs.certificates,
        metavar="FILE",
        help="Connect over TLS, and trust the authorities in this PEM file.",
    ),
]
TlsCert = Annotated[
    _inputs.Pem | None,
    typer.Option(
        parser=_inputs.certificates,
        metavar="FILE",
        help="Present the certificate in this PEM file to the server.",
    ),
]
TlsKey = Annotated[
    _inputs.Pem | None,
    typer.Option(
        parser=_inputs.private_key,
        metavar="FILE",
        help="Use the private key in this PEM file for the certificate.",
    ),
]
TokenFile = Annotated[
    _inputs.Token | None,
    typer.Option(
        parser=_inputs.token,
        metavar="FILE",
        help="Send the token in this file, as 'authorization: Bearer TOKEN'.",
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        parser=_inputs.seconds,
        metavar="SECONDS",
        help="Wait this long for the server to come up.",
    ),
]


def connects(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options that describe a server, in place of its parameter `server`."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    address, *rest = inspect.signature(_server, eval_str=True).parameters.values()
    shown = [address, *(each for each in own if each.name != "server"), *rest]

    @functools.wraps(command)
    def run(**given: Any) -> int:
        described = {each.name: given.pop(each.name) for each in (address, *rest)}
        return command(**given, server=_server(**described))

    signature = inspect.Signature(shown)
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in shown}
    return run


def _server(
    *,
    address: Address,
    metadata: Metadata = [],  # noqa: B006 - typer reads it
    token_file: TokenFile = None,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    wait: Wait = 5.0,
) -> Server:
    trust = None
    if tls or tls_ca or tls_cert or tls_key:
        trust = Trust(tls_ca, tls_cert, tls_key)
        trust.check()
    return Server(address, metadata, trust, token_file, wait)
