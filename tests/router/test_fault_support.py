"""The faults that other tests inject do what they say, and end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.router.support.faults import FAULTS, site
from tests.router.support.traffic import until_seen

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


async def test_each_fault_can_be_injected_and_ends(tmp_path: Path) -> None:
    async with site(tmp_path, postgres=True) as made:
        for name, inject in FAULTS.items():
            async with inject(made) as fault:
                assert fault.name == name
            await until_seen(made.steady, "OK", 3)
