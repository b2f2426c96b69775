"""The page in a real Chromium: buttons, keys, small and dark screens, and large fleets."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import ModelSpec
from grpcerrors_router.security import editing
from grpcerrors_router.security.access import Access
from grpcerrors_router.security.tokens import Role, digest_of
from grpcerrors_router.web.serving import PageServer
from tests.interop.support.chromium import FIRST_SCREEN, LEAST_CONTRAST, chromium, shoot, tab
from tests.router.conftest import HANG, QUICK, eventually, fleet
from tests.router.support import processes
from tests.router.support.page import fill, serving
from tests.router.support.traffic import Traffic, until_seen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.router.support.page import Served

READABLE = 4.5
"""The least contrast of text with its background (WCAG 2.2, level AA)."""


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    async with chromium() as started:
        yield started


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'registry.db'}"


@pytest.fixture
async def served(sqlite_url: str) -> AsyncIterator[Served]:
    async with serving(sqlite_url) as made:
        yield made


def url(served: Served, fragment: str = "") -> str:
    return f"http://{served.browser.address}/{fragment}"


async def see(page: Any, text: str, where: str = "body") -> None:
    """Wait until a text is shown."""
    await page.locator(where, has_text=text).first.wait_for()


# Buttons


async def test_models_are_loaded_and_unloaded(served: Served, browser: Any) -> None:
    async with tab(browser, url(served)) as page:
        row = page.locator("section", has_text="Models").get_by_role("row", name="m fake")
        await row.get_by_role("button", name="Load m", exact=True).click()
        await see(page, "m is loaded on a", ".notice")
        assert "m" in served.node.held
        await see(page, "ready", "table.matrix td")
        await row.get_by_role("button", name="Unload").click()
        await see(page, "m was unloaded from a", ".notice")
        assert not served.node.held


async def test_unloading_a_model_in_use_is_confirmed(served: Served, browser: Any) -> None:
    await served.predict()
    served.node.gate = asyncio.Event()
    call = asyncio.ensure_future(served.predict())
    async with tab(browser, url(served, "#model=m")) as page:
        await see(page, "1 call in flight", "dialog")
        await page.get_by_role("button", name="Unload m from a", exact=True).click()
        await see(page, "cuts the calls off", "dialog .question")
        await shoot(page, "question")
        await page.get_by_role("button", name="Cancel").click()
        assert served.node.held
        await page.get_by_role("button", name="Unload m from a", exact=True).click()
        await page.get_by_role("button", name="Unload anyway").click()
        await eventually(lambda: served.node.frees == ["m"])
        served.node.gate.set()
        await asyncio.wait({call})


async def test_a_node_is_drained_and_its_drain_ended(served: Served, browser: Any) -> None:
    async with tab(browser, url(served)) as page:
        await page.get_by_role("button", name="Drain").click()
        await see(page, "Node a is drained", "li.problem.note")
        assert served.router.table.nodes["a"].info.draining
        await page.get_by_role("button", name="End the drain of a").click()
        await see(page, "All is well", "#status")
        assert not served.router.table.nodes["a"].info.draining


async def test_a_failed_load_is_shown_and_forgiven(sqlite_url: str, browser: Any) -> None:
    patient = replace(QUICK, load_backoff=HANG)
    async with (
        serving(sqlite_url, settings=patient) as served,
        tab(browser, url(served, "#model=m")) as page,
    ):
        served.node.load_error = "no such file"
        dialog = page.get_by_role("dialog")
        await dialog.get_by_role("button", name="Load", exact=True).click()
        await see(page, "no such file", "dialog .notice.failed")
        await see(page, "not loaded on a", "dialog .history")
        await page.keyboard.press("Escape")
        await dialog.wait_for(state="detached")
        served.node.load_error = ""
        await page.locator("li.problem.error").get_by_role("button", name="Forgive").click()
        await see(page, "the next request tries again", ".notice")
        await served.predict()
        await see(page, "1 model loaded", "#status")


async def test_what_the_router_refuses_is_said_in_words(served: Served, browser: Any) -> None:
    async with tab(browser, url(served, "#model=nobody")) as page:
        await page.get_by_role("dialog").get_by_role("button", name="Load", exact=True).click()
        await see(page, 'unknown model "nobody"', "dialog .notice.failed")


# Keys


async def test_all_of_it_works_by_keyboard(served: Served, browser: Any) -> None:
    await served.predict()
    async with tab(browser, url(served)) as page:
        keys = page.keyboard
        await page.wait_for_selector("#status")
        await keys.press("?")
        await see(page, "search nodes", "dialog")
        await shoot(page, "keys")
        await keys.press("Escape")
        await page.get_by_role("dialog").wait_for(state="detached")
        await keys.press("/")
        await keys.type("nothing has this name")
        await see(page, "No node and no model matches.")
        await keys.press("Escape")
        await keys.press("u")
        await see(page, "a", "table.matrix th")
        # The matrix is one stop of the tab order; the arrows move in it.
        await _tab_to(page, "#node=a")
        ring = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring == "solid"
        await keys.press("ArrowRight")
        assert await _focused(page) == "m on a: ready"
        await keys.press("Enter")
        await see(page, "Why did it move?", "dialog")
        await see(page, "loaded on a", "dialog .history")
        await _tab_to(page, "Unload m from a")
        await keys.press("Enter")
        await see(page, "m was unloaded from a", "dialog .notice")
        assert not served.node.held
        await keys.press("Escape")
        await page.get_by_role("dialog").wait_for(state="detached")
        await _tab_to(page, "Load m")
        await keys.press("Space")
        await see(page, "m is loaded on a", ".notice")


async def _focused(page: Any) -> str:
    said: str = await page.evaluate(
        "(({ ariaLabel, title, hash }) => ariaLabel || title || hash || '')(document.activeElement)"
    )
    return said.partition(",")[0]


async def _tab_to(page: Any, name: str) -> None:
    for _ in range(60):
        if await _focused(page) == name:
            return
        await page.keyboard.press("Tab")
    pytest.fail(f"Tab does not lead to {name}")


# Screens


LONG = "qwen2.5-0.5b-instruct-q4_k_m-with-a-rather-long-name-and-no-place-to-break-it"


async def test_a_narrow_screen_needs_no_scrolling_to_the_side(
    sqlite_url: str, browser: Any
) -> None:
    models = {name: ModelSpec(name, "fake") for name in ("m", LONG)}
    async with serving(sqlite_url, models=models) as served:
        await served.predict()
        await served.router.load(LONG)
        await served.router.operations.drain("a")
        for fragment in ("", f"#model={LONG}", "#node=a", "#help"):
            async with tab(browser, url(served, fragment), width=400, height=800) as page:
                await see(page, "Node a is drained")
                if fragment:
                    await page.wait_for_selector("dialog h2")
                await shoot(page, f"narrow{fragment[:6]}", full=True)
                for box in ("document.documentElement", "document.querySelector('dialog')"):
                    wide = await page.evaluate(f"{box} && [{box}.scrollWidth, {box}.clientWidth]")
                    assert wide is None or wide[0] <= wide[1], (fragment, box)
                cut = await page.evaluate(
                    "[...document.querySelectorAll('button, a, p, li, td')].filter((each) =>"
                    " each.checkVisibility() && each.getBoundingClientRect().right > innerWidth"
                    " && !each.closest('.notice.empty')).map((each) => each.outerHTML)"
                )
                assert cut == []


@pytest.mark.parametrize("dark", [False, True])
async def test_all_text_can_be_read(served: Served, browser: Any, dark: bool) -> None:
    node, shade = served.node, "dark" if dark else "light"
    await served.predict()
    node.evict("m")
    await served.predict()
    node.load_error = "no such file"
    with pytest.raises(grpc.aio.AioRpcError):
        await served.router.load("n")
    await served.router.operations.drain("a")
    for fragment in ("", "#model=m", "#node=a", "#help"):
        async with tab(browser, url(served, fragment), dark=dark) as page:
            await see(page, "Node a is drained")
            if fragment:
                await page.wait_for_selector("dialog h2")
            await shoot(page, f"{shade}{fragment[:6]}", full=not fragment)
            ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (ground == "rgb(20, 23, 26)") is dark
            ratio, text = await page.evaluate(LEAST_CONTRAST)
            assert ratio >= READABLE, text


# Connections


async def test_a_lost_connection_is_shown_and_made_again(sqlite_url: str, browser: Any) -> None:
    async with fleet(sqlite_url) as (router,):
        first = PageServer(router, ("127.0.0.1", 0))
        where = await first.start()
        async with tab(browser, where) as page:
            await see(page, "live", "header .live")
            await first.stop(1)
            await see(page, "connection lost", "header .lost")
            await see(page, " old", "header .lost")
            await shoot(page, "lost")
            second = PageServer(router, ("127.0.0.1", int(where.split(":")[2].strip("/"))))
            await second.start()
            await see(page, "live", "header .live")
            await router.registry.add_node("127.0.0.1:9", "fake", name="new")
            await see(page, "new", "table.matrix th")
        await second.stop(1)


async def test_an_operator_logs_in_and_out(sqlite_url: str, tmp_path: Path, browser: Any) -> None:
    path = tmp_path / "tokens.toml"
    editing.add(path, "boss", digest_of("secret"), roles=[Role.OPERATOR])
    async with serving(sqlite_url, Access(path)) as served, tab(browser, url(served)) as page:
        await page.get_by_label("Operator token").fill("wrong")
        await page.keyboard.press("Enter")
        await see(page, "does not know this token")
        await shoot(page, "login")
        await page.get_by_label("Operator token").fill("secret")
        await page.get_by_role("button", name="Log in").click()
        await page.get_by_role("button", name="Drain").click()
        await see(page, "Node a is drained", "li.problem.note")
        assert await page.evaluate("document.cookie") == ""
        await page.get_by_role("button", name="Log out").click()
        await page.get_by_label("Operator token").wait_for()


# Large fleets


async def test_a_thousand_nodes_with_two_hundred_models_are_usable(
    sqlite_url: str, browser: Any
) -> None:
    models = {f"model-{n:03}": ModelSpec(f"model-{n:03}", "fake") for n in range(200)}
    async with fleet(sqlite_url, models=models) as (router,):
        fill(router, 1000, 200)
        server = PageServer(router, ("127.0.0.1", 0))
        where = await server.start()
        began = time.monotonic()
        async with tab(browser, where) as page:
            await see(page, "All is well. 1,000 nodes, 200 models loaded", "#status")
            print(f"first paint of 200,000 replicas: {time.monotonic() - began:.1f} s")  # noqa: T201
            await see(page, "1,000 nodes not shown")
            # Nodes with something to see are shown by themselves.
            entry = router.table.nodes["gpu-777"]
            router.table.set_state(entry, reachable=False, busy=True)
            entry.fresh_until = 0.0
            await see(page, "Node gpu-777 (127.0.4.28:9) accepts no connection", "li.problem")
            await see(page, "gpu-777", "table.matrix th")
            await shoot(page, "large")
            await page.keyboard.press("/")
            await page.keyboard.type("model-199")
            await see(page, "model-199", "table.matrix thead")
            assert await page.locator("table.matrix thead th").count() == 2
            await page.keyboard.press("Escape")
            await page.keyboard.press("u")
            await page.keyboard.press("a")
            await see(page, "gpu-38", "table.matrix th")
            assert await page.locator("table.matrix tbody tr").count() == 40
            assert await page.locator("table.matrix thead th").count() == 17
            await shoot(page, "large-all")
            await page.get_by_role("button", name="show more", exact=True).first.click()
            await see(page, "gpu-78", "table.matrix th")
            assert await page.evaluate("document.querySelectorAll('*').length") < 30_000
            seconds = await page.evaluate(
                "new Promise((done) => { const began = performance.now();"
                " document.getElementById('search').focus();"
                " requestAnimationFrame(() => setTimeout(() =>"
                " done((performance.now() - began) / 1000))); })"
            )
            assert seconds < 2
        await server.stop(1)


# From the page alone


async def test_a_fault_is_found_and_cured_from_the_page_alone(tmp_path: Path, browser: Any) -> None:
    """Somebody drained both nodes, so requests fail; the page says so, and ends it."""
    async with processes.fleet(tmp_path, '[models]\nm = { backend = "echo" }\n') as made:
        gateway = await made.gateway("127.0.0.1:0", "--http", "127.0.0.1:0")
        for name in ("left", "right"):
            await made.node(gateway.address, name)
        with Traffic(gateway.address) as traffic, traffic.to("m") as seen:
            await until_seen(seen, "OK")
            for name in ("left", "right"):
                await made.registry.set_draining(name, draining=True)
            await until_seen(seen, "NO_CAPACITY")
            async with tab(browser, f"http://{gateway.addresses[-1]}/") as page:
                await see(page, "silent or draining", "li.problem.error")
                read = await page.evaluate(FIRST_SCREEN)
                assert 'No node can take model "m"' in read
                assert "end the drain of a node" in read
                assert "Node left is drained" in read
                await shoot(page, "cure-before")
                await page.get_by_role("button", name="End the drain of left").click()
                await until_seen(seen, "OK", 3)
                await see(page, "1 model loaded", "#status")
                await shoot(page, "cure-after")
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            reply = await BackendStub(channel).Predict(
                pb.PredictOptions(Prompt="hi", ModelIdentity="m"), timeout=60
            )
            assert reply.message
