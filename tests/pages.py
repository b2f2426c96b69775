"""Pages with files to save and commands to run, followed as a reader would."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PATIENCE = 300
JOINED = "until grep -q joined output.txt; do sleep 0.1; done\n"
"""Waits until a node has joined a router, in the output of the commands."""

_BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def free_port() -> str:
    """Return a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def save_and_collect(text: str, folder: Path, after: Mapping[str, str]) -> str:
    """Save the files of a page in *folder*; return the commands of its `sh` blocks, in order.

    *after* gives commands to add behind each block that contains a certain text.
    """
    commands = ""
    for language, name, block in _BLOCK.findall(text):
        if name:
            (folder / name).write_text(block)
        if language == "sh":
            commands += block + "".join(more for part, more in after.items() if part in block)
    return commands


def run(commands: str, folder: Path, **environment: str) -> tuple[int | None, str]:
    """Run shell commands in *folder*; end what they started; return the exit code and output."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    output = folder / "output.txt"
    with output.open("w") as file:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=folder,
            env={**os.environ, "PATH": path, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # one group with the servers, so that all can be ended at once
        )
        try:
            code = shell.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    return code, output.read_text()
