"""The README's files and commands work as they stand, in the order written."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PATIENCE = 300
_BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _run(commands: str, folder: Path, gateway: str) -> tuple[int | None, str]:
    """Run shell commands in *folder*; end what they started; return the exit code and output."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    output = folder / "output.txt"
    with output.open("w") as file:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=folder,
            env={**os.environ, "PATH": path, "ROUTER_GATEWAY": gateway},
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


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE)
def test_the_readme_works_as_written(tmp_path: Path) -> None:
    router, backend = _free_port(), _free_port()
    text = README.replace("50050", router).replace("50051", backend)
    commands = ""
    for language, name, block in _BLOCK.findall(text):
        if name:
            (tmp_path / name).write_text(block)
        if language == "sh":
            commands += block
            if "--router" in block:  # as the text says: continue when the node has joined
                commands += "until grep -q joined output.txt; do sleep 0.1; done\n"
    code, output = _run(commands, tmp_path, f"127.0.0.1:{router}")
    assert code == 0, output
    assert "Conforming" in output
    assert "model not loaded, backend 'shout'" in output
    assert re.search(r"hello\b", output)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 90
