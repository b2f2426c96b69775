"""Two routers for each exploit: an open one, on which it works, and a closed one."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from grpcerrors_router.security.access import Access
from grpcerrors_router.security.editing import add
from grpcerrors_router.security.tokens import Role, digest_of, new_token
from tests.router.support.rawnode import Stack, stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

Headers = list[tuple[str, str]]


@dataclass
class Target:
    """A router with one node, "raw-1". If `closed`, it asks for tokens.

    `callers` are the headers of an honest caller, `insider` those of an attacker: none on an open
    router, and on a closed one those of a caller, whose token is no node's and no operator's.
    """

    stack: Stack
    closed: bool
    callers: Headers = field(default_factory=list)
    insider: Headers = field(default_factory=list)


@pytest.fixture(params=["open", "closed"])
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Target]:
    async with AsyncExitStack() as cleanup:
        if request.param == "open":
            yield Target(await cleanup.enter_async_context(stack(tmp_path)), closed=False)
            return
        path = tmp_path / "tokens.toml"
        path.touch(0o600)
        headers: list[Headers] = []
        for name, roles in (("honest", [Role.CALLER]), ("insider", [Role.CALLER])):
            token = new_token()
            models = ["m"] if name == "honest" else ["nothing-of-this"]
            add(path, name, digest_of(token), roles=roles, models=models)
            headers.append([("authorization", f"Bearer {token}")])
        made = await cleanup.enter_async_context(stack(tmp_path, access=Access(path)))
        yield Target(made, closed=True, callers=headers[0], insider=headers[1])
