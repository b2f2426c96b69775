"""The README's files and commands work as they stand, in the order written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import pages

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(2 * pages.PATIENCE)
def test_the_readme_works_as_written(tmp_path: Path) -> None:
    router = pages.free_port()
    text = README.replace("50050", router).replace("50051", pages.free_port())
    commands = pages.save_and_collect(text, tmp_path, {"--router": pages.JOINED})
    code, output = pages.run(commands, tmp_path, ROUTER_GATEWAY=f"127.0.0.1:{router}")
    assert code == 0, output
    assert "Conforming" in output
    assert "model not loaded, backend 'shout'" in output
    assert re.search(r"hello\b", output)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 90
