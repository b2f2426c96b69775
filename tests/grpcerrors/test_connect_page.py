"""The blocks of docs/how-to/connect.md work when they are run in order."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.grpcerrors.support import connect

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "connect.md"
BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATIENCE = 60

pytestmark = [
    pytest.mark.skipif(not PAGE.exists(), reason="the docs do not travel with the wheel"),
    pytest.mark.skipif(not connect.NEW, reason="the page is about connectrpc"),
]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_until_it_listens(port: int) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError


@pytest.mark.slow
def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    port = _free_port()
    page = PAGE.read_text().replace("50051", str(port))
    blocks = BLOCK.findall(page)
    assert len(blocks) == page.count("\n```") / 2, "a block that the test does not run"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    server = None
    printed = ""
    try:
        for _, name, text in blocks:
            if name:
                (tmp_path / name).write_text(text)
                continue
            for line in text.splitlines():
                if line.startswith("pip install") or line == "kill $!; wait":
                    continue  # the packages are installed, and the server is stopped below
                command = shlex.split(line)
                if command[-1] == "&":
                    server = subprocess.Popen(command[:-1], cwd=tmp_path, env=environment)
                    _wait_until_it_listens(port)
                    continue
                done = subprocess.run(
                    command,
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    check=False,
                )
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
                printed += done.stdout
    finally:
        if server is not None:
            server.terminate()
            server.wait(PATIENCE)
    assert "Conforming" in printed
    assert "headers went out before the error" in printed
    assert "trailers: (('grpcerrors-unexecuted', 'MODEL_NOT_LOADED'),)" in printed
    assert "typed: True held: None\nHELLO\n" in printed


def test_the_table_names_every_library_that_is_tested() -> None:
    for library in ("grpcio", "google-api-core", "connectrpc", "grpclib", "betterproto2"):
        assert f"{library}" in PAGE.read_text().split("| library |")[1]
