"""The command line as a program: its help, its completion, and what it imports."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from typer.main import get_command

from grpcerrors_router.cli.app import app
from tests.router.support.cli import SCRIPT, command
from tests.router.support.rawnode import Stack, stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Stack]:
    # The router runs in this process, so its log would mix with the output of the commands.
    with structlog.testing.capture_logs():
        async with stack(tmp_path) as made:
            yield made


HEAVY = ("alembic", "psycopg", "prometheus_client", "sqlalchemy", "structlog", "uvloop")


async def test_the_script_and_the_module_are_the_same_command(served: Stack) -> None:
    for arguments in (("--version",), ("serve", "--help")):
        first, second = [
            await command(served, *arguments, module=module) for module in (True, False)
        ]
        assert first == second
    code, out, _ = await command(served, "--version")
    assert (code, out) == (0, f"grpcerrors-router {version('grpcerrors-router')}\n")


async def test_without_a_command_it_lists_them(served: Stack) -> None:
    code, _, err = await command(served)
    assert code == 2
    for name in ("serve", "status", "heals", "add-node", "drain", "load", "models", "check"):
        assert f"  {name} " in err


@pytest.mark.parametrize("name", [command.name for command in app.registered_commands])
def test_each_command_is_explained_in_full(name: str | None) -> None:
    commands: Any = get_command(app).commands  # type: ignore[attr-defined]
    listed = {each.get_short_help_str(): each for each in commands.values()}
    assert not any(short.endswith("...") for short in listed)
    for each in commands.values():
        assert f"grpcerrors-router {each.name}" in each.epilog
        assert all(option.help for option in each.params)


async def test_completion_knows_the_commands(served: Stack) -> None:
    words = {
        "_GRPCERRORS_ROUTER_COMPLETE": "complete_bash",
        "COMP_WORDS": "x sta",
        "COMP_CWORD": "1",
    }
    process = await asyncio.create_subprocess_exec(
        SCRIPT, stdout=subprocess.PIPE, env={**os.environ, **words}
    )
    out, _ = await process.communicate()
    assert out.decode().split() == ["status"]


@pytest.mark.slow
async def test_status_imports_only_what_it_needs(served: Stack) -> None:
    """Imports take most of the run time of `status`, and Ctrl-C may interrupt them."""
    program = (
        "import sys; from grpcerrors_router.cli import main; main(sys.argv[1:]); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, "status"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "ROUTER_GATEWAY": served.address},
    )
    assert "raw-1" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
