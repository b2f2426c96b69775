"""How tokens.toml is changed: under a lock, in one step, and with its comments kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import TYPE_CHECKING

import tomlkit

from grpcerrors_router.closest import closest
from grpcerrors_router.config.toml_file import dotted, read
from grpcerrors_router.security.tokens_toml import TokensError, parse_tokens

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tomlkit import TOMLDocument

    from grpcerrors_router.security.tokens import Role

LOCK_PATIENCE = 5.0
"""Seconds to wait for another process that changes the file."""


def add(
    path: Path,
    name: str,
    digest: bytes,
    *,
    roles: Sequence[Role],
    models: Sequence[str] = (),
    nodes: Sequence[str] = (),
    expires: dt.date | None = None,
) -> None:
    """Add a token to the file, which is created if need be, readable by its owner only.

    Args:
        path: the file.
        name: the token's name.
        digest: its SHA-256.
        roles: its roles.
        models: patterns of the models that it may call; none for all.
        nodes: patterns of the names of its nodes; none for all.
        expires: when it ends.

    Raises:
        TokensError: the file has mistakes, or the new entry would be one.
        ValueError: it has a token of that name.
        OSError: it cannot be written.
    """
    entry = tomlkit.table()
    if len(roles) == 1:
        entry["role"] = str(roles[0])
    else:
        entry["roles"] = [str(role) for role in roles]
    if models:
        entry["models"] = list(models)
    if nodes:
        entry["nodes"] = list(nodes)
    entry["sha256"] = digest.hex()
    if expires is not None:
        entry["expires"] = expires

    def change(document: TOMLDocument) -> None:
        tokens = document.setdefault("tokens", tomlkit.table(is_super_table=True))
        if name in tokens:
            where = dotted(("tokens", name))
            raise ValueError(f"{path} already has [{where}]; revoke it first, or use another name")
        tokens[name] = entry

    _edit(path, change)


def revoke(path: Path, name: str) -> None:
    """Remove a token from the file.

    Raises:
        TokensError: the file cannot be read, or has mistakes.
        ValueError: it has no token of that name.
        OSError: it cannot be written.
    """

    def change(document: TOMLDocument) -> None:
        tokens = document.get("tokens", {})
        if name not in tokens:
            raise ValueError(f'{path} has no token "{name}"; {closest(name, tokens)}')
        del tokens[name]

    read(path, TokensError)  # so that a misspelt file is not created
    _edit(path, change)


def _edit(path: Path, change: Callable[[TOMLDocument], None]) -> None:
    """Apply a change to the file, which is replaced in one step; nothing changes on an error."""
    path = path.resolve()
    lock = path.with_name(f"{path.name}.lock")
    descriptor = _create(lock)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_changed(path, change).encode())
            file.flush()
            os.fsync(descriptor)
        if path.exists():
            shutil.copymode(path, lock)
            owner = path.stat()
            with contextlib.suppress(OSError, AttributeError):  # not root, or not Unix
                os.chown(lock, owner.st_uid, owner.st_gid)
        lock.replace(path)  # from here on, a lock is another process's
    except BaseException:
        lock.unlink()
        raise


def _changed(path: Path, change: Callable[[TOMLDocument], None]) -> str:
    """Return the text of the file after a change; it is valid before and after."""
    text = read(path, TokensError) if path.exists() else ""
    parse_tokens(text, str(path))
    document = tomlkit.parse(text)
    change(document)
    changed = tomlkit.dumps(document)
    parse_tokens(changed, str(path))
    return changed


def _create(lock: Path) -> int:
    """Create the lock file, which becomes the new file, and return its descriptor."""
    until = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            return os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            if time.monotonic() > until:
                raise OSError(
                    f"another process is changing the tokens; if none is, delete {lock}"
                ) from None
            time.sleep(0.02)
