"""The datagram that tells systemd that a process is ready."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from grpcerrors_protocol.readiness import report_ready

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_is_told(
    abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    name = f"grpcerrors-{tmp_path.name}" if abstract else "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(30)
        manager.bind(f"\0{name}" if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        report_ready()
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "/nonexistent/notify"])
def test_without_a_manager_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    report_ready()
