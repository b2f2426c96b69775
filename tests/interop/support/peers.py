"""Clients and servers in other languages, as processes.

Each is put together in a folder of its own, as an author does it: the single file of `languages`,
its program for the vectors, and the sources of `tests/interop`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.interop.support import vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

HERE = Path(__file__).parents[1]
LANGUAGES = HERE.parents[1] / "languages"
BUILD = HERE / ".build"  # kept from run to run, so that compilers need not start anew
GOPATH = "/usr/share/gocode"  # where Debian installs the sources of Go libraries
SECONDS = 120.0  # that only a hang reaches


class Sighting(NamedTuple):
    """What a client saw of one error: its code and message, and what its language says of it."""

    received: int  # messages before the error
    code: int
    message: str
    condition: str
    evidence: str
    unexecuted: bool
    retry_after: float | None
    held: str
    metadata: dict[str, str]


class Peer(NamedTuple):
    """A language, by the commands that run its programs.

    `command` is a client and a server of errors, `vectors` answers the vectors, and `tests` runs
    the tests that are written in that language.
    """

    command: tuple[str, ...]
    vectors: tuple[str, ...]
    tests: tuple[str, ...]
    environment: dict[str, str]

    def answers(self, path: Path) -> list[list[str]]:
        """Return the cells that its program prints for the lines of a flat file of vectors."""
        return _cells(self._run(*self.vectors, path))

    def test(self) -> None:
        """Run the tests that are written in its language."""
        self._run(*self.tests)

    def ask(self, address: str) -> dict[tuple[str, str], Sighting]:
        """Make it call a server for each row in each shape; return the results by (row, shape)."""
        lines = _cells(self._run(*self.command, "client", address, vectors.FLAT_PATH))
        return {(row, shape): _sighting(*cells) for row, shape, *cells in lines}

    def _run(self, *command: str | Path) -> str:
        done = subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, check=True, timeout=SECONDS
        )
        return done.stdout.decode()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Run it as a server and yield its address. It ends when its standard input is closed."""
        process = subprocess.Popen(
            [*self.command, "server", vectors.FLAT_PATH],
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


def _cells(lines: str) -> list[list[str]]:
    return [vectors.cells(line) for line in lines.rstrip("\n").split("\n")]


def _sighting(received: str, code: str, message: str, *cells: str) -> Sighting:
    condition, evidence, unexecuted, retry_after, held, _, *pairs = cells
    return Sighting(
        received=int(received),
        code=int(code),
        message=message,
        condition=condition,
        evidence=evidence,
        unexecuted=unexecuted == "1",
        retry_after=float(retry_after) if retry_after else None,
        held=held,
        metadata=dict(zip(pairs[::2], pairs[1::2], strict=True)),
    )


def needs(what: Path | str | None, name: str) -> str:
    """Return the path of a tool; skip the test if it is not installed."""
    if what is None or not Path(what).exists():
        pytest.skip(f"no {name} here: run tests/interop/setup.sh")
    return str(what)


def assembled(folder: Path, sources: Iterable[Path]) -> Path:
    """Copy sources into a folder, which loses those that are gone; return it. Times are kept."""
    copied = {source.name: source for source in sources}
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.suffix in {source.suffix for source in copied.values()}:
            path.unlink()
    for source in copied.values():
        shutil.copy2(source, folder)
    return folder


def go() -> Peer:
    """Build the Go peer."""
    needs(f"{GOPATH}/src/google.golang.org/grpc", "grpc-go")
    program = needs(shutil.which("go"), "Go")
    sources, own = LANGUAGES / "go", BUILD / "go"
    assembled(own / "src/grpcerrors", sources.glob("*.go"))
    rows = sources / "vectors/rows.go"
    assembled(own / "src/vectors", [rows, sources / "vectors/main.go"])
    assembled(own / "src/peer", [rows, *HERE.glob("go/*.go")])
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{own}:{GOPATH}"}
    for name in ("vectors", "peer"):
        build = (program, "build", "-o", str(own / name), name)
        subprocess.run(build, env=environment, check=True)
    programs = (str(own / "peer"),), (str(own / "vectors"),)
    return Peer(*programs, (program, "test", "grpcerrors"), environment)


def node() -> Peer:
    """Put the Node peer together."""
    program = needs(shutil.which("node"), "Node")
    sources = LANGUAGES / "node"
    modules = needs(sources / "node_modules/@grpc/grpc-js", "@grpc/grpc-js")
    copied = [*sources.glob("*.js"), *HERE.glob("node/*.js"), sources / "package.json"]
    own = assembled(BUILD / "node", copied)
    if not (own / "node_modules").exists():
        (own / "node_modules").symlink_to(Path(modules).parents[1])

    def run(file: str) -> tuple[str, str]:
        return program, str(own / file)

    return Peer(run("main.js"), run("vectors.js"), run("grpcerrors.test.js"), {**os.environ})


PEERS: dict[str, Callable[[], Peer]] = {"go": go, "node": node}
