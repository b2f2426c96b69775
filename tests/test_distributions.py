"""The four distributions agree with each other and with requirements/."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tomllib

import grpcerrors

ROOT = Path(__file__).parents[1]
FILES = (
    "pyproject.toml",
    *(f"{room}/pyproject.toml" for room in ("protocol", "backends", "router")),
)
PAGES = [ROOT / room / "README.md" for room in ("grpcerrors", "protocol", "backends", "router")]
SAME = ("license", "authors", "maintainers")


def project(file: str) -> Any:
    return tomllib.loads((ROOT / file).read_text())["project"]


def test_they_have_one_version() -> None:
    assert {project(file)["version"] for file in FILES} == {grpcerrors.__version__}


@pytest.mark.parametrize("file", FILES)
def test_they_require_the_same_version_of_each_other(file: str) -> None:
    ours = {project(other)["name"] for other in FILES}
    for need in project(file)["dependencies"]:
        name = re.split(r"[^A-Za-z0-9._-]", need)[0]
        if name in ours:
            assert need == f"{name}=={grpcerrors.__version__}"


def test_a_new_version_changes_nothing_else(tmp_path: Path) -> None:
    others = ("grpcerrors/__init__.py", "deploy/README.md", "docs/how-to/install.md")
    changed = (*FILES, *others, "deploy/kubernetes/kustomization.yaml")
    for file in (*changed, "tools/set-version"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    subprocess.run([tmp_path / "tools/set-version", "9.8.7"], check=True, stdout=subprocess.DEVNULL)
    for file in changed:
        before, after = (folder / file for folder in (ROOT, tmp_path))
        pairs = zip(before.read_text().splitlines(), after.read_text().splitlines(), strict=True)
        for old, new in pairs:
            ours = re.sub(r"(?<!models==)\b" + re.escape(grpcerrors.__version__), "9.8.7", old)
            assert new == ours


@pytest.mark.parametrize("file", FILES)
def test_their_metadata_is_complete(file: str) -> None:
    folder = (ROOT / file).parent
    found = project(file)
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert {key: found[key] for key in SAME} == {key: project(FILES[0])[key] for key in SAME}
    own, *vendored = found["license-files"]
    assert own == "LICENSE"
    brought = {path.parent for path in folder.glob("grpcerrors*/**/vendor/*.LICENSE")}
    assert {(folder / pattern).parent for pattern in vendored} == brought
    assert folder / found["readme"] in PAGES
    assert found["keywords"]
    assert found["urls"]
    lowest = found["requires-python"].removeprefix(">=")
    pythons = re.findall(r":: Python :: (3\.\d+)", " ".join(found["classifiers"]))
    assert pythons == [f"3.{minor}" for minor in range(int(lowest[2:]), 14)]
    assert "Typing :: Typed" in found["classifiers"]
    (package,) = tomllib.loads((ROOT / file).read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]["packages"]
    assert (folder / package / "py.typed").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_their_pages_have_no_relative_links(page: Path) -> None:
    """They would lead nowhere on a package index."""
    assert re.findall(r"\]\((?!https://)", page.read_text()) == []


@pytest.mark.parametrize(
    "path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda p: p.name
)
def test_what_is_pinned_has_hashes_and_names_no_place(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert not [line for line in lines if "://" in line or line.startswith("-")]
    pins = [line for line in lines if "==" in line]
    assert pins
    assert all(pin.endswith("\\") for pin in pins)
    assert sum("--hash=sha256:" in line for line in lines) >= len(pins)
