"""Hooks of MkDocs (mkdocs.yml): generated pages, files from outside docs/, links and code blocks.

The pages in docs/ are written so that they also read well in the repository. Links lead to files of
the repository, and the first line of a code block may say more than its language (fences.py).
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), *(str(ROOT / room) for room in ("protocol", "backends", "router"))]

from tools.site import commands, settings  # noqa: E402
from tools.site.fences import Fence, split  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

BROUGHT = {
    "CHANGELOG.md": "changelog.md",
    "CONTRACT.md": "reference/contract.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "deploy/README.md": "how-to/deploy.md",
    "examples/README.md": "examples.md",
    "languages/README.md": "how-to/other-languages.md",
}
"""Pages that are kept where readers of the repository look, and where the site has them."""
GENERATED = {
    "reference/cli.md": commands.page,
    "reference/settings.md": settings.page,
}
_LINK = re.compile(r"(?<=\]\()([^)#\s:]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, the pages from outside docs/, and the files that pages link to."""
    for path, make in GENERATED.items():
        files.append(File.generated(config, path, content=make()))
    for path, place in BROUGHT.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    for path in sorted(_linked_sources(files)):
        files.append(File.generated(config, _place(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn links between files of the repository into links of the site; tidy code blocks."""
    here = PurePosixPath(page.file.src_uri)

    def site_link(link: re.Match[str]) -> str:
        target = _target(_home(page.file.src_uri), link[1])
        if target is None:
            return link[1]  # MkDocs reports it
        return os.path.relpath(_place(target), here.parent)

    return "".join(
        _shown(part) if isinstance(part, Fence) else _LINK.sub(site_link, part)
        for part in split(markdown)
    )


def _shown(fence: Fence) -> str:
    """Return a code block as the site shows it: with the name of its file, or the file itself."""
    text = fence.text
    if fence.name and not text:
        text = (ROOT / fence.name).read_text()
    title = f' title="{fence.name}"' if fence.name else ""
    return f"{fence.marks}{fence.language}{title}\n{text}{fence.marks}\n"


def _linked_sources(files: Files) -> set[str]:
    """Return the files of the repository that pages link to and that are no pages themselves."""
    found: set[str] = set()
    for file in files.documentation_pages():
        for part in split(file.content_string):
            if isinstance(part, str):
                targets = (_target(_home(file.src_uri), link) for link in _LINK.findall(part))
                found.update(target for target in targets if target and not _is_page(target))
    return found


def _is_page(path: str) -> bool:
    return path.startswith("docs/") or path in BROUGHT


def _home(place: str) -> str:
    """Return where in the repository the page at *place* of the site is kept."""
    kept = {there: here for here, there in BROUGHT.items()}
    return kept.get(place, f"docs/{place}")


def _place(path: str) -> str:
    """Return where the site has a file of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return BROUGHT.get(path, f"source/{path}")


def _target(page: str, link: str) -> str | None:
    """Return the file of the repository that a link on *page* leads to; None if there is none."""
    path = PurePosixPath(os.path.normpath(PurePosixPath(page).parent / link))
    for each in _candidates(path):
        if each in _GENERATED_PATHS or (ROOT / each).is_file():
            return each
    return None


def _candidates(path: PurePosixPath) -> Iterator[str]:
    yield str(path)
    yield str(path / "README.md")
    yield str(path / "index.md")


_GENERATED_PATHS = {f"docs/{path}" for path in GENERATED}
