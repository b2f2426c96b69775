"""Scripts that no other quick test runs can at least be read by the shell."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = (".ci", "tools", "deploy", "tests")


def test_the_shell_can_read_each_script() -> None:
    scripts = [
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and "node_modules" not in path.parts and ".build" not in path.parts
        if path.read_bytes()[:64].partition(b"\n")[0].endswith((b"bash", b"/sh"))
    ]
    assert len(scripts) > 3
    for script in scripts:
        checked = subprocess.run(
            ["bash", "-n", script], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stderr
