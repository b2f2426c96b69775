"""Generation of the committed code: ``python -m grpcerrors_protocol.generate [--check]``.

Needs ``uv``, which installs the compiler into a temporary environment. The compiler is old on
purpose: the code of grpcio-tools 1.71.0 runs on protobuf 5, 6 and 7 and on grpcio 1.71 or later,
while the code of newer compilers refuses older runtimes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

COMPILER = "grpcio-tools==1.71.0"
ROOM = Path(__file__).resolve().parent
PROTOS = tuple(f"{ROOM.name}/{name}.proto" for name in ("backend", "fleet", "inference"))


def generate(into: Path) -> list[Path]:
    """Compile the .proto files into the directory *into*; return the paths of the new files.

    Raises CalledProcessError if the compiler reports an error (on stderr), and ValueError if its
    output has an unexpected form.
    """
    compiler = [sys.executable, "-m", "uv", "run", "--quiet", "--no-project", "--isolated"]
    compiler += ["--python", sys.executable, "--with", COMPILER]
    outputs = [f"--{kind}_out={into}" for kind in ("python", "pyi", "grpc_python")]
    command = [*compiler, "python", "-m", "grpc_tools.protoc", f"-I{ROOM.parent}", *outputs]
    subprocess.run([*command, *PROTOS], check=True, cwd=ROOM.parent)  # noqa: S603 - fixed words
    made = sorted((into / ROOM.name).glob("*_pb2*.py*"))
    for file in made:
        if file.name.endswith("_pb2.py"):
            file.write_text(_into_own_pool(file.read_text()))
    return made


def _into_own_pool(code: str) -> str:
    """Return generated *code*, changed to use the pool in `grpcerrors_protocol.pool`."""
    for was, now in (
        (
            "from google.protobuf import descriptor_pool as _descriptor_pool\n",
            f"from {ROOM.name} import pool as _own_pool\n",
        ),
        ("_descriptor_pool.Default().", "_own_pool.POOL."),
    ):
        if code.count(was) != 1:
            raise ValueError(f"unexpected output of the compiler: {was!r} must occur once")
        code = code.replace(was, now)
    return code


def stale() -> list[str]:
    """Return the names of committed files that differ from newly generated ones."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = {made.name: made.read_text() for made in generate(Path(scratch))}
    kept = {have.name: have.read_text() for have in ROOM.glob("*_pb2*.py*")}
    return sorted(name for name in fresh.keys() | kept.keys() if fresh.get(name) != kept.get(name))


def main() -> int:
    """Run the command line; return 1 if --check finds stale files, else 0."""
    parser = argparse.ArgumentParser(prog="python -m grpcerrors_protocol.generate")
    parser.add_argument("--check", action="store_true", help="list stale files and write nothing")
    if not parser.parse_args().check:
        generate(ROOM.parent)
        return 0
    if names := stale():
        sys.stderr.write(f"out of date: {', '.join(names)}; run `make proto`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
