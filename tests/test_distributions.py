"""The four distributions agree with each other and with requirements/."""

from __future__ import annotations

import re
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


def project(file: str) -> Any:
    return tomllib.loads((ROOT / file).read_text())["project"]


def test_they_have_one_version() -> None:
    assert {project(file)["version"] for file in FILES} == {grpcerrors.__version__}


@pytest.mark.parametrize("file", FILES)
def test_they_require_a_compatible_version_of_each_other(file: str) -> None:
    major, minor, _ = project(file)["version"].split(".")
    compatible = f">={major}.{minor},<{major}.{int(minor) + 1}"
    ours = {project(other)["name"] for other in FILES}
    for need in project(file)["dependencies"]:
        name = re.split(r"[^A-Za-z0-9._-]", need)[0]
        if name in ours:
            assert need == name + compatible


@pytest.mark.parametrize("file", FILES)
def test_they_carry_the_licence_and_a_readme(file: str) -> None:
    folder = (ROOT / file).parent
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert project(file)["license-files"] == ["LICENSE"]
    assert (folder / project(file)["readme"]).stat().st_size > 0


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
