"""Clients and servers in other languages, as processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import google.rpc.status_pb2
import pytest

from tests.interop.support import vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parents[1]
GOPATH = "/usr/share/gocode"  # where Debian installs the sources of Go libraries
SECONDS = 120.0  # that only a hang reaches


class Peer(NamedTuple):
    """A program that is a client and a server of errors."""

    command: tuple[str, ...]
    environment: dict[str, str]

    def ask(self, address: str) -> dict[tuple[str, str], Any]:
        """Make it call a server for each row in each shape; return the results by (row, shape)."""
        done = subprocess.run(
            [*self.command, "client", address, vectors.PATH],
            env=self.environment,
            stdout=subprocess.PIPE,
            check=True,
            timeout=SECONDS,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return {(line["row"], line["shape"]): line for line in lines}

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Run it as a server and yield its address. It ends when its standard input is closed."""
        process = subprocess.Popen(
            [*self.command, "server", vectors.PATH],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            try:
                process.wait(SECONDS)
            finally:
                process.kill()
                process.stdout.close()


def needs(what: Path | str | None, name: str) -> str:
    """Return the path of a tool; skip the test if it is not installed."""
    if what is None or not Path(what).exists():
        pytest.skip(f"no {name} here: run tests/interop/setup.sh")
    return str(what)


def go(folder: Path) -> Peer:
    """Build the Go peer in `folder`."""
    environment = {"GO111MODULE": "off", "GOPATH": GOPATH, **os.environ}
    needs(f"{environment['GOPATH']}/src/google.golang.org/grpc", "grpc-go")
    binary = folder / "go-peer"
    subprocess.run(
        [needs(shutil.which("go"), "Go"), "build", "-o", binary, "."],
        cwd=HERE / "go",
        env=environment,
        check=True,
    )
    return Peer((str(binary),), environment)


def node(_folder: Path) -> Peer:
    """Return the Node peer, with the .proto files that Python's googleapis-common-protos has."""
    program = needs(shutil.which("node"), "Node")
    needs(HERE / "node/node_modules/@grpc/grpc-js", "@grpc/grpc-js")
    protos = Path(google.rpc.status_pb2.__file__).parents[2]
    environment = {**os.environ, "GOOGLE_PROTOS": str(protos)}
    return Peer((program, str(HERE / "node/main.js")), environment)
