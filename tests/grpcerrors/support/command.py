"""Running the command in this process."""

from __future__ import annotations

from typing import NamedTuple
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
