"""The pages about the router are complete, and their programs run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from grpcerrors_router.config.models_toml import parse_models
from grpcerrors_router.errors import REASONS, RouteError
from grpcerrors_router.security.tokens_toml import parse_tokens
from tests import pages
from tests.certificates import Authority

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_several_routers_share_a_database(tmp_path: Path, postgres_url: str) -> None:
    page = (DOCS / "how-to/several-routers.md").read_text()
    replace = {"postgresql://router@127.0.0.1:5432/router": f"'{postgres_url}'"}
    pages.follow([page], tmp_path, replace)


@pytest.mark.slow
def test_a_router_is_closed_in_five_commands(tmp_path: Path) -> None:
    authority = Authority.create()
    authority.write(tmp_path / "ca.pem")
    for name in ("router", "node"):
        authority.issue("127.0.0.1", name=name).write(tmp_path, name)
    page = (DOCS / "security.md").read_text()
    section = page[: page.index("## Who is kept from what")]
    assert "loaded" in pages.follow([section], tmp_path)


def test_its_models_files_are_valid() -> None:
    found = [parse_models(block) for block in blocks("reference/models-toml.md", "toml")]
    assert [set(models) for models in found] == [{"tiny.en", "vad"}]


def test_the_tokens_file_is_valid() -> None:
    (example,) = re.findall(
        r"^```toml \S+\n(.*?)^```$",
        (DOCS / "reference/tokens-toml.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    shop, gpu = parse_tokens(example)
    assert shop.may_call("tiny.en")
    assert gpu.may_be("gpu-1")


def test_every_reason_is_listed() -> None:
    table = (DOCS / "reference/errors.md").read_text().partition("| code | reason |")[2]
    listed = re.findall(r"^\| [A-Z_, ]+ \| ([A-Z_]+)(?:, \*elsewhere\*)? \|", table, re.MULTILINE)
    assert sorted([*listed, RouteError.reason]) == sorted(REASONS)
