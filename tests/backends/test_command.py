"""The command line: what it refuses, it refuses in one line that says what to do."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from grpcerrors_backends import registry as catalogue
from grpcerrors_backends.registry import Entry, MissingExtraError, UnknownBackendError, find

from .support.hosting import ROOT


def refused(*arguments: str) -> str:
    command = [sys.executable, "-m", "grpcerrors_backends", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]  # gRPC itself may have logged before


def test_an_unknown_backend() -> None:
    line = refused("ecco", "--listen", "127.0.0.1:0")
    assert line.startswith("no backend 'ecco'; there are chat, ")


def test_an_address_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = refused("echo", "--listen", address)
    assert line == f"cannot listen on '{address}': it is taken, or not of the form HOST:PORT"


@pytest.mark.parametrize(
    "name", ["grpcerrors_backends.nowhere:Model", "grpcerrors_backends.echo:Nothing"]
)
def test_a_class_that_is_not_there(name: str) -> None:
    with pytest.raises(UnknownBackendError):
        find(name)


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry("no_such_package_at_all", "Model", "some")
    monkeypatch.setitem(catalogue.CATALOGUE, "some", entry)
    with pytest.raises(MissingExtraError, match=r"pip install 'grpcerrors-backends\[some\]'"):
        find("some")


def test_a_backend_of_the_catalogue() -> None:
    assert find("echo").name == "echo"
    assert find("grpcerrors_backends.echo:Echo") is find("echo")
