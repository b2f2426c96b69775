"""The documentation site builds without a warning, and needs nothing from other servers."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import grpcerrors.testing
import grpcerrors_router

ROOT = Path(__file__).parents[2]
# What a browser fetches by itself; a link that a reader follows may lead elsewhere.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc="?(?:https?:)?//[^>]*>"""
    r"""|<link\b(?=[^>]*rel="?(?:stylesheet|preconnect|icon|preload))[^>]*href="?(?:https?:)?//"""
    r"""|@import[^;]*//|url\(["']?(?:https?:)?//""",
)
FAULTS = (
    "lost-model",
    "node-down",
    "node-stopped",
    "load-hangs",
    "load-fails",
    "quarantine",
    "no-capacity",
    "registry-down",
    "overload",
    "name-taken",
)


def test_the_navigation_has_each_page_once() -> None:
    """Quick, so that a page that is missing there is noticed before the site is built."""
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = sorted(re.findall(r"(\S+\.md)$", navigation, re.MULTILINE))
    hooks = (ROOT / "tools/site/hooks.py").read_text()
    brought = re.findall(r'^    "[\w/.-]+\.md": "([\w/.-]+\.md)",$', hooks, re.MULTILINE)
    generated = re.findall(r'^    "([\w/.-]+\.md)": \w+\.page,$', hooks, re.MULTILINE)
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert listed == sorted([*pages, *brought, *generated])


def build(folder: Path, config: Path) -> subprocess.CompletedProcess[str]:
    command = ("properdocs", "build", "--config-file", config, "--site-dir", folder)
    return subprocess.run(
        (sys.executable, "-m", *command), cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("properdocs", reason="the group `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    built = build(folder, ROOT / "mkdocs.yml")
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.slow
def test_it_fetches_nothing_from_other_servers(site: Path) -> None:
    for page in (*site.rglob("*.html"), *site.rglob("*.css")):
        assert not _FETCHED.findall(page.read_text()), page


@pytest.mark.slow
def test_each_fault_has_a_section_in_troubleshooting(site: Path) -> None:
    sections = re.findall(r'<h2 id="([\w-]+)"', (site / "troubleshooting.html").read_text())
    assert tuple(sections[: len(FAULTS)]) == FAULTS


@pytest.mark.slow
def test_it_has_every_command_and_every_public_name(site: Path) -> None:
    commands = (site / "reference/cli.html").read_text()
    for command in ("grpcerrors-check", "grpcerrors-backend", "grpcerrors-router-serve"):
        assert f'id="{command}"' in commands
    names = (site / "reference/python.html").read_text()
    for module in (grpcerrors, grpcerrors.testing, grpcerrors_router):
        for name in module.__all__:
            if inspect.isclass(it := getattr(module, name)) or inspect.isfunction(it):
                assert f'id="{module.__name__}.{name}"' in names


@pytest.mark.slow
def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("properdocs", reason="the group `docs` is not installed")
    (tmp_path / "docs").mkdir()
    links = ("nowhere.md", "#nowhere", "../nowhere.py")
    (tmp_path / "docs/index.md").write_text("\n".join(f"[to]({link})" for link in links))
    config = tmp_path / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {ROOT}/mkdocs.yml\ndocs_dir: docs\nhooks: [{ROOT}/tools/site/hooks.py]\n"
        "nav: [index.md]\nplugins: []\nextra_css: []\n"
    )
    built = build(tmp_path / "site", config)
    assert built.returncode == 1
    for link in links:
        assert f"'{link}'" in built.stderr
