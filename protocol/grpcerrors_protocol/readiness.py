"""Readiness, as systemd and compatible service managers learn of it (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket


def report_ready() -> None:
    """Tell the service manager that this process accepts calls.

    Does nothing unless the environment names the manager's socket in NOTIFY_SOCKET, or if nothing
    listens there.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(b"READY=1", address)
