"""The commands of deploy/README.md, block by block, and a copy of deploy/ to run them in."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from tests import pages

if TYPE_CHECKING:
    from pathlib import Path


def _lines(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


SECRETS, CONTAINERS, CLIENTS, INSTALL, UNITS, KUBERNETES = (
    _lines(block.text) for block in pages.fences((pages.ROOT / "deploy/README.md").read_text())
)


def copy(folder: Path, secrets: str) -> Path:
    """Copy deploy/ into *folder*, and run *secrets*, the page's command that makes them."""
    shutil.copytree(pages.ROOT / "deploy", folder / "deploy")
    subprocess.run(["bash", "-euc", secrets], cwd=folder, check=True)
    return folder
