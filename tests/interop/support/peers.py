"""Clients and servers in other languages, as processes.

Each is put together in a folder of its own, as an author does it: the single file of `languages`,
its program for the vectors, and the sources of `tests/interop`.
"""

from __future__ import annotations

import hashlib
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

    `command` is a client and a server of errors (empty: it has none), `vectors` answers the
    vectors, and `tests` runs the tests that are written in that language.
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


def compiled(target: Path, *command: str | Path) -> None:
    """Run a compiler in the folder of a target, unless it has made it from the same files."""
    sources = (path for path in sorted(target.parent.glob("*.*")) if path.suffix in _SOURCES)
    made_of = hashlib.sha256(repr([command, [each.read_bytes() for each in sources]]).encode())
    stamp = target.with_name(f".{target.name}.stamp")
    if stamp.exists() and stamp.read_text() == made_of.hexdigest():
        return
    subprocess.run(command, cwd=target.parent, check=True, timeout=2 * SECONDS)
    stamp.write_text(made_of.hexdigest())


_SOURCES = {".cpp", ".hpp", ".java", ".proto", ".rs", ".toml"}
_STRICT = ("-std=c++17", "-Wall", "-Wextra", "-Werror")


def cpp() -> Peer:
    """Build the C++ peer."""
    compiler = needs(shutil.which("g++"), "g++")
    protoc = needs(shutil.which("protoc"), "protoc")
    plugin = needs(shutil.which("grpc_cpp_plugin"), "grpc_cpp_plugin")
    needs("/usr/include/grpcpp/grpcpp.h", "grpc++")
    sources = [*LANGUAGES.glob("cpp/*.?pp"), *HERE.glob("cpp/*.cpp")]
    own = assembled(BUILD / "cpp", [*sources, HERE / "support/errors.proto"])
    plugins = ("--cpp_out=.", "--grpc_out=.", f"--plugin=protoc-gen-grpc={plugin}")
    compiled(own / "errors.pb.h", protoc, "-I.", *plugins, "errors.proto")
    for name in ("vectors", "grpcerrors_test"):
        strict = (*_STRICT, "-Wpedantic", "-Wshadow", "-Wconversion", "-O1")
        compiled(own / name, compiler, *strict, f"{name}.cpp", "-o", name)
    generated = ("errors.pb.cc", "errors.grpc.pb.cc")
    flags = [needs(shutil.which("pkg-config"), "pkg-config"), "--cflags", "--libs", "grpc++"]
    libraries = subprocess.run(flags, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    compiled(
        own / "peer",
        compiler,
        *_STRICT,
        "peer.cpp",
        *generated,
        "-o",
        "peer",
        *libraries,
        "-lprotobuf",
    )
    peer, answers, tests = (str(own / each) for each in ("peer", "vectors", "grpcerrors_test"))
    return Peer((peer,), (answers,), (tests,), {**os.environ})


# What grpc-java needs, as Debian names it.
_JARS = "grpc-* protobuf guava gson netty-* perfmark-api opencensus-api error_prone_annotations"


def java() -> Peer:
    """Build the Java peer."""
    compiler = needs(shutil.which("javac"), "javac")
    folder = Path("/usr/share/java")
    for each in _JARS.split():
        needs(next(folder.glob(f"{each}.jar"), None), f"{each}.jar")
    own = assembled(BUILD / "java", [*LANGUAGES.glob("java/*.java"), *HERE.glob("java/*.java")])
    jars = [str(path) for each in _JARS.split() for path in folder.glob(f"{each}.jar")]
    path = ":".join([*jars, str(own / "classes")])
    (own / "classes").mkdir(exist_ok=True)
    strict = ("-Xlint:all", "-Werror", "-encoding", "UTF-8", "--release", "11")
    names = sorted(path.name for path in own.glob("*.java"))
    compiled(own / "classes", compiler, *strict, "-cp", path, "-d", "classes", *names)

    def run(name: str) -> tuple[str, ...]:
        # Without its optimizing compiler, a program that ends after seconds is faster.
        return ("java", "-XX:TieredStopAtLevel=1", "-cp", path, f"grpcerrors.{name}")

    return Peer(run("Peer"), run("Vectors"), run("GrpcErrorsTest"), {**os.environ})


def rust() -> Peer:
    """Build the programs in Rust, whose gRPC library has no package here: it makes no calls."""
    compiler = needs(shutil.which("rustc"), "rustc")
    own = assembled(BUILD / "rust", [*LANGUAGES.glob("rust/*.rs"), *LANGUAGES.glob("rust/*.toml")])
    strict = (compiler, "--edition", "2021", "-O", "-D", "warnings")
    compiled(own / "vectors", *strict, "vectors.rs", "-o", "vectors")
    compiled(own / "tests", *strict, "--test", "grpcerrors_test.rs", "-o", "tests")
    return Peer((), (str(own / "vectors"),), (str(own / "tests"),), {**os.environ})


PEERS: dict[str, Callable[[], Peer]] = {
    "go": go,
    "node": node,
    "cpp": cpp,
    "java": java,
    "rust": rust,
}
CALLERS = [name for name in PEERS if name != "rust"]  # those with a gRPC library
