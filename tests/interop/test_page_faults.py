"""Ten faults of a fleet of real processes: the first screen names cause, node and cure."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.interop.support.chromium import FIRST_SCREEN, chromium, shoot, tab
from tests.router.support.faults import FAULTS, REASON, site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.router.support.faults import Fault, Site

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITHIN = 10.0
"""Seconds in which the page must name a fault."""

ALL_SEEN = f"""(words) => {{
  const seen = ({FIRST_SCREEN})();
  return words.every((each) => seen.includes(each));
}}"""

SAID = {
    "lost-model": ("lost was gone from node {node}", "give it more memory or fewer slots"),
    "node-down": ("Node {node} ", "start it if it has ended"),
    "node-stopped": ("Node {node} ", "restart it if it is stopped or hangs"),
    "load-hangs": ("Node {node} has been loading {model} for long", "restart the node"),
    "load-fails": ("{model} cannot be loaded on", "{detail}", "Fix what the message says"),
    "quarantine": ("Node {node} keeps losing {model}", "more memory or fewer slots", "Forgive"),
    "no-capacity": ('No node offers backend "{detail}", so {model} cannot', "Start a node"),
    "registry-down": ("The registry (postgresql) cannot be read", "Start the database"),
    "overload": ("Node {node} refuses requests for {model}", "raise the node's --max-calls"),
    "name-taken": ('node name "{node}" belongs to', "{detail}", "Give each node a name of its own"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    async with site(folder, "--http", "127.0.0.1:0", postgres=True) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Any]:
    async with chromium() as started:
        yield started


def url(fleet: Site) -> str:
    return f"http://{fleet.gateway.addresses[-1]}/"


@pytest.mark.parametrize("name", FAULTS)
async def test_the_first_screen_names_cause_node_and_cure(
    fleet: Site, browser: Any, name: str
) -> None:
    async with tab(browser, url(fleet)) as page:
        await page.wait_for_selector("#status")
        async with FAULTS[name](fleet) as fault:
            began = time.monotonic()
            words = [each.format(**_facts(fault)) for each in SAID[name]]
            severity = "warning" if name in ("lost-model", "load-hangs") else "error"
            problem = page.locator(f"li.problem.{severity}", has_text=words[0].strip())
            try:
                async with asyncio.timeout(WITHIN):
                    await problem.wait_for()
                    await page.wait_for_function(ALL_SEEN, arg=words)
            finally:
                print(f"{name}: {time.monotonic() - began:.1f} s")  # noqa: T201
                await shoot(page, f"fault-{name}")
            assert await problem.count() == 1
            assert words[-1] in await problem.inner_text()
            assert "All is well" not in await page.locator("#status").inner_text()


def _facts(fault: Fault) -> dict[str, str]:
    return {"node": fault.node, "model": fault.model, "detail": fault.detail or REASON}
