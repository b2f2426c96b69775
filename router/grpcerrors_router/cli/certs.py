"""The command `certs`, which makes certificates for a fleet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

CERTS_EXAMPLES = """Examples:

\b
  grpcerrors-router certs router=10.0.0.1 gpu-1=10.0.0.2 me
  grpcerrors-router certs gpu-2=gpu-2.lan,10.0.0.3 --days 90
"""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,62}")
_HOST = re.compile(r"[A-Za-z0-9_.:-]{1,253}")


def certs(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME[=HOST]",
            help="Make a certificate with this name: for a server that is reached at HOST, or at "
            "several, separated by commas; without HOST, for a client.",
            show_default=False,
        ),
    ],
    folder: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Write the files to this folder.")
    ] = Path("certs"),
    days: Annotated[
        int, typer.Option(min=1, metavar="N", help="Let the certificates be valid for N days.")
    ] = 365,
) -> None:
    """Make certificates for a fleet.

    An authority of your own signs them: the first time, the command makes one and writes ca.pem and
    ca.key. Each certificate is written to NAME.pem, and its private key to NAME.key. Run it again
    for further names, or to renew: servers and clients follow their files.
    """
    wanted = [_parsed(each) for each in names]
    try:
        from grpcerrors_router.security.certificates import Authority
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "cryptography":
            raise
        raise ValueError(
            "this command needs cryptography: pip install 'grpcerrors-router[certs]'"
        ) from error

    authority = Authority(folder)
    if authority.is_new:
        typer.echo(f"{folder}/ca.pem: trust this authority with --tls-ca and --tls-client-ca")
        typer.echo(f"{folder}/ca.key: keep this key here: it signs certificates of your fleet")
    for name, hosts in wanted:
        authority.issue(name, hosts, days)
        whom = f"a server at {', '.join(hosts)}" if hosts else "a client"
        typer.echo(f"{folder}/{name}.pem, {name}.key: {whom}, for {days} days")


def _parsed(text: str) -> tuple[str, list[str]]:
    """Return the name and the hosts of NAME=HOST,..."""
    name, equals, listed = text.partition("=")
    hosts = listed.split(",") if equals else []
    if not _NAME.fullmatch(name) or name == "ca" or not all(map(_HOST.fullmatch, hosts)):
        raise ValueError(
            f"{text!a} is not NAME or NAME=HOST,..., as in gpu-1=gpu-1.lan,10.0.0.2; "
            "the name ca is the authority's"
        )
    return name, hosts
