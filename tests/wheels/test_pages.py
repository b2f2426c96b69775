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
    text = "".join((ROOT / room / "README.md").read_text() for room in ROOMS)
    for port in ("50050", "50051", "50052"):
        text = text.replace(port, pages.free_port())
    commands = pages.save_and_collect(text, tmp_path, {"--router": pages.JOINED})
    code, output = pages.run(f"{commands}\npython -c 'import backend, detect'", tmp_path)
    assert code == 0, output
    assert "model not loaded" in output
    assert output.count("Conforming") == 2
    assert "hello" in output  # in the status
    assert output.endswith("what is new?\n")
