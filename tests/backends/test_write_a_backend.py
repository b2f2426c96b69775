"""The blocks of docs/how-to/write-a-backend.md work when they are run in order.

A `python NAME` block is a file to save, and an `sh` block has commands to run. A command that ends
in `&` starts a server, which runs until `kill $!; wait`, and one that begins with `!` fails. After
`#` is what it prints.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .support.hosting import PATIENCE, ROOT

PAGE = ROOT / "docs" / "how-to" / "write-a-backend.md"
BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Reader:
    """Follows the page in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server: subprocess.Popen[str] | None = None
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        rooms = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": rooms}

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def run(self, *command: str, shown: str = "", code: int = 0) -> None:
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == code, f"{command}\n{done.stdout}{done.stderr}"
        assert shown in done.stdout + done.stderr

    def serve(self, *command: str) -> None:
        assert self.server is None, "the page must stop the previous server first"
        self.server = subprocess.Popen(
            command,
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.server.stdout is not None
        assert "ready" in self.server.stdout.readline()

    def stop(self) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.wait(PATIENCE)
            assert self.server.stdout is not None
            self.server.stdout.close()
            self.server = None

    def sh(self, line: str) -> None:
        *command, last = shlex.split(line, comments=True)
        if [*command, last] == ["kill", "$!;", "wait"]:
            self.stop()
            return
        if command[:2] == ["pip", "install"]:
            return  # the packages are installed: the tests need them
        if last == "&":
            self.serve(*command)
        else:
            fails = command[0] == "!"
            shown = line.partition("  # ")[2]
            self.run(*command[fails:], last, shown=shown, code=int(fails))


@pytest.mark.slow
def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    blocks = BLOCK.findall(PAGE.read_text().replace("50051", port))
    assert len(blocks) == PAGE.read_text().count("\n```") / 2, "a block that the test does not run"
    reader = Reader(tmp_path)
    try:
        for language, name, text in blocks:
            if name:
                reader.write(name, text)
                continue
            assert language == "sh"
            for line in text.splitlines():
                reader.sh(line)
        assert reader.server is None, "the page leaves a server running"
    finally:
        reader.stop()
