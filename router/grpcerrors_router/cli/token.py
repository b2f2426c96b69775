"""The commands `token new`, `token list` and `token revoke`, which edit the tokens file."""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - typer reads annotations at run time
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from grpcerrors_router.cli.common import AsJson  # noqa: TC001 - as above
from grpcerrors_router.security.tokens import Role

GROUP_HELP = "Make, list and revoke tokens."
GROUP_EXAMPLES = """Examples:

\b
  grpcerrors-router token new --role operator --name alice
  grpcerrors-router token list
"""
NEW_EXAMPLES = """Examples:

\b
  grpcerrors-router token new --role node --name 'gpu-*' --out gpu.token
  grpcerrors-router token new --role caller --name shop --models 'tiny*'
"""
LIST_EXAMPLES = """Example:

\b
  grpcerrors-router token list --tokens /etc/grpcerrors/tokens.toml
"""
REVOKE_EXAMPLES = """Example:

\b
  grpcerrors-router token revoke shop
"""

TokensFile = Annotated[Path, typer.Option("--tokens", metavar="FILE", help="Use this tokens file.")]
DEFAULT_TOKENS = Path("tokens.toml")

app = typer.Typer(
    no_args_is_help=True, help=GROUP_HELP, epilog=GROUP_EXAMPLES, rich_markup_mode=None
)


@app.command(epilog=NEW_EXAMPLES)
def new(
    *,
    role: Annotated[
        list[Role],
        typer.Option(
            metavar="ROLE",
            help="Give the token this role: caller, node or operator; repeat it for several.",
        ),
    ],
    name: Annotated[
        str,
        typer.Option(metavar="NAME", help="Give the token this name, by which it is revoked."),
    ],
    models: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Let a caller call only the models that fit, such as 'tiny*'; repeat it for "
            "several.",
            show_default="all",
        ),
    ] = None,
    nodes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Let a node have only names that fit, such as 'gpu-*'; repeat it for several.",
            show_default="the name of the token",
        ),
    ] = None,
    expires: Annotated[
        dt.datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            metavar="YYYY-MM-DD",
            help="End the token when this day begins, in UTC.",
            show_default="never",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the token to this new file, which only its owner can read.",
            show_default="print it",
        ),
    ] = None,
    tokens: TokensFile = DEFAULT_TOKENS,
) -> None:
    """Make a token and print it once; the file gets only its hash.

    A running router with serve --tokens FILE accepts it within two seconds.
    """
    from grpcerrors_router.security.editing import add
    from grpcerrors_router.security.tokens import digest_of, new_token

    if models and Role.CALLER not in role:
        raise ValueError("--models is for --role caller")
    if nodes and Role.NODE not in role:
        raise ValueError("--nodes is for --role node")
    if Role.NODE in role and not nodes:
        nodes = [name]
    token = new_token()
    if out is not None:
        _write(out, token)
    try:
        add(
            tokens,
            name,
            digest_of(token),
            roles=list(dict.fromkeys(role)),
            models=models or (),
            nodes=nodes or (),
            expires=expires.date() if expires is not None else None,
        )
    except BaseException:
        if out is not None:
            out.unlink()
        raise
    if out is None:
        typer.echo(token)
        typer.echo(f"added {name} to {tokens}; this token is not shown again", err=True)
    else:
        typer.echo(f"added {name} to {tokens}, and wrote its token to {out}", err=True)


def _write(path: Path, token: str) -> None:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise ValueError(f"--out {path} exists; name a new file") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{token}\n")


@app.command("list", epilog=LIST_EXAMPLES)
def list_(
    *,
    tokens: TokensFile = DEFAULT_TOKENS,
    as_json: AsJson = False,
) -> None:
    """List the tokens: names, roles and limits. The tokens themselves are not stored."""
    from grpcerrors_router.security.tokens_toml import read_tokens

    found = sorted(read_tokens(tokens), key=lambda token: token.name)
    if as_json:
        import json

        rows = [
            {
                "name": token.name,
                "roles": sorted(token.roles),
                "models": token.models,
                "nodes": token.nodes,
                "expires": token.expires and _utc(token.expires, "%Y-%m-%dT%H:%M:%SZ"),
                "expired": token.expired,
            }
            for token in found
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.table import Table

    from grpcerrors_router.cli.common import console

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("TOKEN", "ROLES", "MODELS", "NODES", "EXPIRES"):
        shown.add_column(column, overflow="fold")
    for token in found:
        ends = _utc(token.expires, "%Y-%m-%d %H:%M") if token.expires is not None else "never"
        shown.add_row(
            token.name,
            ", ".join(sorted(token.roles)),
            _patterns(token.models, applies=Role.CALLER in token.roles),
            _patterns(token.nodes, applies=Role.NODE in token.roles),
            "expired" if token.expired else ends,
        )
    if not found:
        shown.add_row("no tokens")
    console().print(shown)


def _utc(moment: float, form: str) -> str:
    return time.strftime(form, time.gmtime(moment))


def _patterns(patterns: tuple[str, ...] | None, *, applies: bool) -> str:
    if not applies:
        return "-"
    return "all" if patterns is None else " ".join(patterns)


@app.command(epilog=REVOKE_EXAMPLES)
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Revoke the token of this name.")],
    *,
    tokens: TokensFile = DEFAULT_TOKENS,
) -> None:
    """Remove a token from the file.

    A running router refuses new calls with it within two seconds; calls in flight run to their end.
    """
    from grpcerrors_router.security.editing import revoke as remove

    remove(tokens, name)
    typer.echo(f"revoked {name}")
