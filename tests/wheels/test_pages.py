"""The pages of the four distributions work as written, with nothing but the wheels installed."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

from tests import pages

# In this order: the last page calls the router that the page before has started.
ROOMS = ("grpcerrors", "backends", "router", "protocol")
PACKAGES = ("grpcerrors", *(f"grpcerrors_{room}" for room in ROOMS[1:]))
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_is_not_the_checkout(package: str) -> None:
    module = importlib.import_module(package)
    assert not Path(str(module.__file__)).is_relative_to(os.environ["CHECKOUT"])


@pytest.mark.timeout(2 * pages.PATIENCE)
def test_the_pages_work_as_written(tmp_path: Path) -> None:
    texts = [(ROOT / room / "README.md").read_text() for room in ROOMS]
    imports = "```sh\npython -c 'import backend, detect'\n```\n"
    output = pages.follow([*texts, imports], tmp_path)
    assert "model not loaded" in output
    assert output.count("Conforming") == 2
    assert "hello" in output  # in the status
    assert "\nwhat is new?\n" in output
