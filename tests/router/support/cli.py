"""The command line as a user starts it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.router.support.rawnode import Stack

Run = tuple[int, str, str]
SCRIPT = str(Path(sys.executable).with_name("grpcerrors-router"))


async def command(served: Stack, *arguments: str, module: bool = True) -> Run:
    """Run a command as a user does."""
    program = (sys.executable, "-m", "grpcerrors_router") if module else (SCRIPT,)
    plain = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    process = await asyncio.create_subprocess_exec(
        *(*program, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**plain, "ROUTER_REGISTRY": served.url, "ROUTER_GATEWAY": served.address},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
