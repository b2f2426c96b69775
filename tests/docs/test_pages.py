"""Every code block of every page is run, compared with what is printed, or says why it is not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests import pages

ROOT = pages.ROOT
SESSIONS = (
    ("README.md",),
    (
        "docs/tutorial.md",
        "docs/how-to/operate.md",
        "docs/how-to/foreign-nodes.md",
        "docs/how-to/upgrade-a-model.md",
    ),
    ("docs/how-to/write-a-backend.md",),
    ("docs/how-to/connect.md",),
    ("docs/how-to/embed.md",),
    ("docs/how-to/observe.md",),
    ("docs/reference/call.md",),
    ("docs/reference/tokens-toml.md",),
)
"""Pages that are followed; the later ones of a row use what the first has started."""
ELSEWHERE = {
    "CONTRACT.md": "tests/grpcerrors/test_languages.py",
    "backends/README.md": "tests/wheels/test_pages.py",
    "deploy/README.md": "tests/interop/support/deployment.py",
    "docs/how-to/completion.md": "tests/docs/test_completion.py",
    "docs/how-to/kserve.md": "tests/docs/test_kserve.py",
    "docs/how-to/proxies.md": "tests/interop/support/proxies.py",
    "docs/how-to/testing.md": "tests/grpcerrors/test_testing_kit.py",
    "docs/how-to/several-routers.md": "tests/router/test_pages.py",
    "docs/how-to/two-machines.md": "tests/interop/test_two_machines.py",
    "docs/proposals/localai.md": "tests/interop/test_proposals.py",
    "docs/proposals/open-inference-protocol.md": "tests/grpcerrors/support/make_proposals.py",
    "docs/reference/check.md": "tests/grpcerrors/test_check_page.py",
    "docs/reference/models-toml.md": "tests/router/test_pages.py",
    "docs/security.md": "tests/router/test_pages.py",
    "grpcerrors/README.md": "tests/wheels/test_pages.py",
    "protocol/README.md": "tests/wheels/test_pages.py",
    "router/README.md": "tests/wheels/test_pages.py",
}
"""Pages whose blocks another test runs, and where."""
GENERATED = [ROOT / "docs/reference" / name for name in ("cli.md", "settings.md")]
MOST_NOT_RUN = 20
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "*/README.md", "docs/**/*.md", "deploy/**/*.md")
    for path in ROOT.glob(pattern)
    if not path.is_relative_to(ROOT / ".venv")
)
FOLLOWED = {page for session in SESSIONS for page in session}


def text(page: str) -> str:
    return (ROOT / page).read_text()


@pytest.mark.slow
@pytest.mark.timeout(2 * pages.PATIENCE)
@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: Path(session[0]).stem)
def test_a_page_works_as_written(tmp_path: Path, session: tuple[str, ...]) -> None:
    first, stop, last = text(session[0]).partition("\n## Stop\n")
    pages.follow([first, *(text(page) for page in session[1:]), stop + last], tmp_path)


@pytest.mark.parametrize("page", sorted({*PAGES}))
def test_each_block_is_run_or_says_why_it_is_not(page: str) -> None:
    blocks = [block for block in pages.fences(text(page)) if not block.reason]
    if blocks and page not in FOLLOWED:
        assert page in ELSEWHERE, f"no test runs the blocks of {page}: add it to SESSIONS"
        parts = Path(page).parts
        said = (ROOT / ELSEWHERE[page]).read_text()
        assert all(part.removesuffix(".md") in said for part in parts)


def test_no_block_is_overlooked() -> None:
    for page in PAGES:
        marks = re.findall(r"^ *```", text(page), re.MULTILINE)
        assert len(marks) == 2 * len(pages.fences(text(page))) + _inner(page), page


def _inner(page: str) -> int:
    return sum(len(re.findall(r"^ *```", b.text, re.MULTILINE)) for b in pages.fences(text(page)))


def test_few_blocks_are_not_run_and_each_has_a_reason() -> None:
    reasons = [block.reason for page in PAGES for block in pages.fences(text(page)) if block.reason]
    assert len(reasons) <= MOST_NOT_RUN
    assert all(len(reason.split()) > 1 for reason in reasons)


def test_included_files_exist() -> None:
    for page in PAGES:
        for block in pages.fences(text(page)):
            if block.name and not block.text:
                assert (ROOT / block.name).is_file(), (page, block.name)


@pytest.mark.parametrize("page", PAGES)
def test_its_links_lead_somewhere(page: str) -> None:
    """In the repository; the site's build checks links with anchors."""
    for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", text(page)):
        found = (ROOT / page).parent / link
        assert found.exists() or found.resolve() in GENERATED, link


def test_each_example_is_one_screen_and_says_how_to_run_it() -> None:
    shown = {block.name for page in PAGES for block in pages.fences(text(page))}
    examples = sorted((ROOT / "examples").glob("*.py"))
    assert examples
    for example in examples:
        code = example.read_text()
        name = example.relative_to(ROOT).as_posix()
        assert len(code.splitlines()) <= 60
        assert f"    python {name} " in (ast.get_docstring(ast.parse(code)) or "")
        assert name in shown, "no page shows it"


def test_the_readme_is_short() -> None:
    assert len(text("README.md").splitlines()) <= 90
