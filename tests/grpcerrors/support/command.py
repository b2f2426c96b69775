"""Running the command in this process."""

from __future__ import annotations

import json
from typing import Any, NamedTuple
from unittest import mock

import pytest

from grpcerrors.cli import main


class Ran(NamedTuple):
    """How a run ended."""

    exit_code: int
    out: str
    err: str


def run(capsys: pytest.CaptureFixture[str], *args: str) -> Ran:
    """Run `grpcerrors` with arguments."""
    with mock.patch("sys.argv", ["grpcerrors", *args]), pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    return Ran(int(end.value.code or 0), out, err)


class Checked(NamedTuple):
    """How a check ended, and the JSON that it printed."""

    exit_code: int
    report: dict[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The answers of all services."""
        return [row for service in self.report["services"] for row in service["rpcs"]]

    @property
    def verdicts(self) -> dict[str, str]:
        """The verdict on each RPC."""
        return {row["rpc"]: row["verdict"] for row in self.rows}

    @property
    def implemented(self) -> dict[str, str]:
        """The verdict on each RPC that is implemented."""
        return {rpc: said for rpc, said in self.verdicts.items() if said != "not implemented"}


def check(capsys: pytest.CaptureFixture[str], port: int, *args: str) -> Checked:
    """Run `grpcerrors check` on a server of this machine."""
    ran = run(capsys, "check", f"127.0.0.1:{port}", "--format", "json", *args)
    return Checked(ran.exit_code, json.loads(ran.out))
