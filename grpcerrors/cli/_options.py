"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from grpcerrors.cli import _inputs

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
TlsCa = Annotated[
    _inputs.Authority | None,
    typer.Option(
        parser=_inputs.authority,
        metavar="FILE",
        help="Connect over TLS and trust the certificates in this PEM file.",
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
