"""Each mutant of the router is killed by the test that it names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.router.support.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


def test_every_mutant_can_be_made() -> None:
    for mutant in MUTANTS:
        text = (ROOT / "router/grpcerrors_router" / mutant.file).read_text()
        assert text.count(mutant.old) == 1, mutant.name


# A pytest process each: the second half waits for make soak.
HALF = len(MUTANTS) // 2
RUNS = [
    pytest.param(mutant, id=mutant.name, marks=pytest.mark.slow if n < HALF else pytest.mark.soak)
    for n, mutant in enumerate(MUTANTS)
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", RUNS)
def test_the_mutant_is_killed(mutant: Mutant, tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    for part in ("router", "grpcerrors", "protocol", "tests/router"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignore)
    for file in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    source = tmp_path / "router/grpcerrors_router" / mutant.file
    source.write_text(source.read_text().replace(mutant.old, mutant.new))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist",
         "--timeout", "45", f"tests/router/{mutant.test}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{tmp_path}/router:{tmp_path}/protocol"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert run.returncode == 1, run.stdout + run.stderr
    assert "1 failed" in run.stdout, run.stdout
