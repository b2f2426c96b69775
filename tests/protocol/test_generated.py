"""The committed code matches the .proto files and runs without a warning."""

from __future__ import annotations

import subprocess
import sys

from grpcerrors_protocol import generate


def test_committed_code_is_what_the_protos_say() -> None:
    assert generate.stale() == []


def test_imports_without_a_warning() -> None:
    protocols = ("backend", "fleet", "inference")
    names = ", ".join(["metadata", *(f"{name}_pb2, {name}_pb2_grpc" for name in protocols)])
    command = [sys.executable, "-W", "error", "-c", f"from grpcerrors_protocol import {names}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
