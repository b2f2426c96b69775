"""docs/how-to/completion.md is true: real shells complete the programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import pages

PAGE = (pages.ROOT / "docs/how-to/completion.md").read_text()
INSTALL = [line for block in pages.fences(PAGE) for line in block.text.splitlines()]
BASH = """
typed() {
  COMP_WORDS=($1) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  $(complete -p "${COMP_WORDS[0]}" | sed 's/.*-F \\([^ ]*\\).*/\\1/') "${COMP_WORDS[0]}"
  echo "$1: ${COMPREPLY[*]}"
}
. ~/.bashrc
"""
ZSH = """
autoload -Uz compinit
compinit -u
_arguments() { shown="$*" }
typed() {
  words=($=1) CURRENT=${#words}
  _${words[1]} 2>/dev/null
  ${_comps[${words[1]}]} 2>/dev/null
  echo "$1: $shown"
}
. ~/.zshrc
"""
TYPED = {
    "grpcerrors check --form": "--format",
    "grpcerrors-backend transc": "transcriber",
    "grpcerrors-router serve --on-stale ret": "retry",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "prepare", "programs"), [("bash", BASH, 3), ("zsh", ZSH, 1)], ids=["bash", "zsh"]
)
def test_a_shell_completes_the_programs(
    tmp_path: Path, shell: str, prepare: str, programs: int
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    typed = [f"typed '{line}'" for line in list(TYPED)[-programs:]]
    ran = subprocess.run(
        [shell, "-c", "\n".join([*INSTALL[-programs:], prepare, *typed])],
        env={**os.environ, "HOME": str(tmp_path), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    shown = dict(line.split(": ", 1) for line in ran.stdout.splitlines() if ": " in line)
    for line, completed in list(TYPED.items())[-programs:]:
        assert completed in shown.get(line, ""), ran.stdout + ran.stderr
