"""The tokens that the router sends to nodes: one for all, or one for each foreign node."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import structlog

from grpcerrors_protocol.token_file import CHECK_INTERVAL, TokenFile, TokenFileError
from grpcerrors_router.validation import Invalid, is_name, shown

if TYPE_CHECKING:
    from pathlib import Path

    from grpcerrors_router.entities import Node

_log = structlog.get_logger("router.security")

Header = tuple[str, str]


class NodeTokens:
    """Finds the token for a node.

    A node with a token of its own gets no other: the token of the fleet is not for it.

    Args:
        default: the tokens for nodes without one of their own; None for none.
        secrets: the folder with the tokens that nodes are added with; None if there is none.
    """

    def __init__(self, default: TokenFile | None = None, secrets: Path | None = None) -> None:
        self._default = default
        self._secrets = secrets
        self._files: dict[str, TokenFile] = {}
        self._missing: dict[str, float] = {}

    def header(self, node: Node) -> Header | None:
        """Return the metadata that shows a node its token; None if there is none for it."""
        if not node.token:
            return None if self._default is None else self._default.header
        file = self._files.get(node.token) or self._open(node)
        return None if file is None else file.header

    def _open(self, node: Node) -> TokenFile | None:
        now = time.monotonic()
        if self._missing.get(node.token, 0.0) > now:
            return None
        try:
            self._files[node.token] = self.check(node.token)
        except Invalid as error:
            if node.token not in self._missing:
                _log.warning("no token for a node", node=node.name, why=str(error))
            self._missing[node.token] = now + CHECK_INTERVAL
            return None
        self._missing.pop(node.token, None)
        return self._files[node.token]

    def check(self, name: str) -> TokenFile:
        """Return the file of that name in the folder of secrets.

        Raises:
            Invalid: the name leads out of the folder, or the file cannot be used.
        """
        if self._secrets is None:
            raise Invalid(
                f"the token file {shown(name)} is one in the folder of serve --secrets DIR, and "
                "this router was started without it"
            )
        if not is_name(name) or "/" in name or "\\" in name or name.startswith("."):
            raise Invalid(
                f"the token file {shown(name)} must be the name of a file in the folder of serve "
                "--secrets, without a folder"
            )
        folder = self._secrets.resolve()
        if not _is_inside(folder, name):
            raise Invalid(f"the folder of serve --secrets has no file {shown(name)}")
        try:
            return TokenFile(folder / name, "the token file")
        except TokenFileError as error:
            raise Invalid(str(error)) from error

    def refusal(self, node: Node) -> str:
        """Return why a node may refuse a call of the router, and what to do."""
        if self.header(node) is None:
            return (
                "it asks for a token, and the router has none for it; give serve --node-token-file "
                "FILE, or add-node --node-token-file NAME"
            )
        given = "the file that it was added with" if node.token else "serve --node-token-file"
        return f"the node refuses the router's token; correct the one in {given}"


def _is_inside(folder: Path, name: str) -> bool:
    """Return whether a name is that of a file in a folder, also after links are followed."""
    try:
        path = (folder / name).resolve(strict=True)
    except (OSError, RuntimeError):  # which is a loop of links, before Python 3.13
        return False
    return path.is_relative_to(folder) and path.is_file()


def node_tokens(default: Path | None, secrets: Path | None) -> NodeTokens | None:
    """Return the tokens of `serve`, as its options say; None without these.

    Raises ValueError, which names the option, for what cannot be used.
    """
    if secrets is not None and not secrets.is_dir():
        raise ValueError(f"--secrets {secrets} is no folder")
    if default is None and secrets is None:
        return None
    file = None if default is None else TokenFile(default, "--node-token-file")
    return NodeTokens(file, secrets)


def bearing(call: Any, header: Header) -> Any:
    """Return a method of a stub that sends a token, in place of one that its caller sends."""

    def send(*args: Any, metadata: Any = None, **options: Any) -> Any:
        kept = [pair for pair in metadata or () if pair[0] != header[0]]
        return call(*args, metadata=(*kept, header), **options)

    return send
