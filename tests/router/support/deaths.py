"""A pytest plugin that records why tests failed: `-p tests.router.support.deaths`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

FILE = "DEATHS_FILE"


def pytest_exception_interact(
    node: pytest.Item, call: pytest.CallInfo[object], report: pytest.TestReport
) -> None:
    """Append one JSON line: the test, the phase, the exception, and the line that raised it."""
    if call.excinfo is None:
        return
    in_tests = [entry for entry in call.excinfo.traceback if "tests/" in str(entry.path)]
    raised = (in_tests or call.excinfo.traceback)[-1]
    line = {
        "test": node.nodeid,
        "phase": report.when,
        "error": call.excinfo.typename,
        "message": f"{raised.statement}\n{call.excinfo.value}",
    }
    with Path(os.environ[FILE]).open("a") as file:
        file.write(json.dumps(line) + "\n")
