"""Each mutant of the router fails the test that it names, by the assertion that it names."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.router.support import deaths
from tests.router.support.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests/router"
# Only a hang reaches it: on a quiet machine, the slowest mutant dies within seconds.
LIMIT = 240.0


def test_every_mutant_can_be_made() -> None:
    for mutant in MUTANTS:
        text = (ROOT / "router/grpcerrors_router" / mutant.file).read_text()
        assert text.count(mutant.old) == 1, mutant.name


def test_every_mutant_names_a_test_and_a_line_of_the_tests() -> None:
    for mutant in MUTANTS:
        file, _, test = mutant.test.partition("::")
        assert f"def {test.partition('[')[0]}(" in (TESTS / file).read_text(), mutant.name
        tests = [path.read_text() for path in (TESTS / file, *TESTS.glob("support/*.py"))]
        assert any(mutant.dies_of in text for text in tests), mutant.name


# Each is a pytest process, so the second half runs in `make soak` only.
HALF = len(MUTANTS) // 2
RUNS = [
    pytest.param(mutant, id=mutant.name, marks=pytest.mark.slow if n < HALF else pytest.mark.soak)
    for n, mutant in enumerate(MUTANTS)
]


@pytest.mark.timeout(LIMIT + 60)
@pytest.mark.parametrize("mutant", RUNS)
def test_the_mutant_is_killed(mutant: Mutant, tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    for part in ("router", "grpcerrors", "protocol", "tests/router"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignore)
    for file in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    source = tmp_path / "router/grpcerrors_router" / mutant.file
    source.write_text(source.read_text().replace(mutant.old, mutant.new))
    output, death = run(tmp_path, mutant.test)
    assert death is not None, output
    assert death["phase"] == "call", output
    assert death["error"] in {"AssertionError", "Failed"}, output
    assert mutant.dies_of in death["message"], output


def run(folder: Path, test: str) -> tuple[str, dict[str, Any] | None]:
    """Run one test in a process group of its own; return its output and why it failed."""
    found = folder / "deaths.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist",
         "-p", deaths.__name__,
         "--timeout", "120", "--timeout-method", "thread", f"tests/router/{test}"],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if "COV" not in name},
            "PYTHONPATH": f"{folder}:{folder}/router:{folder}/protocol",
            deaths.FILE: str(found),
            "HANG_SECONDS": "15",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=LIMIT)
    finally:
        # This also ends a test that hangs, and the processes that it started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    lines = found.read_text().splitlines() if found.exists() else []
    return output, json.loads(lines[0]) if lines else None
