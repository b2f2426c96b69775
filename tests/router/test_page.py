"""The page's server: what it shows, what its buttons do, and whom it refuses."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
from typing import TYPE_CHECKING, Any

import pytest

from grpcerrors_protocol.tls import ServerTls
from grpcerrors_router import ModelSpec
from grpcerrors_router.security import editing
from grpcerrors_router.security.access import Access
from grpcerrors_router.security.tokens import Role, digest_of
from grpcerrors_router.web import feed as feeds
from grpcerrors_router.web.app import STATIC
from grpcerrors_router.web.serving import PageServer
from grpcerrors_router.web.window import Window, view
from tests.certificates import Authority
from tests.router.conftest import eventually, fleet
from tests.router.support import processes
from tests.router.support.http import Browser
from tests.router.support.page import Served, fill, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


MODELS = '[models]\nm = { backend = "echo" }\n'


@pytest.fixture
async def served(sqlite_url: str) -> AsyncIterator[Served]:
    async with serving(sqlite_url) as made:
        yield made


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    editing.add(path, "boss", digest_of("secret"), roles=[Role.OPERATOR])
    editing.add(path, "web", digest_of("other"), roles=[Role.CALLER])
    return path


# What it serves


@pytest.mark.slow
async def test_the_page_needs_nothing_from_elsewhere_and_runs_no_inline_script(
    served: Served,
) -> None:
    answer = await served.browser.get("/")
    assert answer.status == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "deny"
    names = re.findall(r'(?:href|src)="([^"]+)"', answer.body)
    assert "/static/page.js" in names
    for name in names:
        assert (await served.browser.get(name)).status == 200
    for file in STATIC.rglob("*.*"):
        urls = re.findall(r"https?://[^\"' )]+", file.read_text())
        assert set(urls) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1998/Math/MathML",
            "http://www.w3.org/1999/xhtml",
        }, file


@pytest.mark.slow
async def test_static_files_are_checked_again_instead_of_stored(served: Served) -> None:
    first = await served.browser.get("/static/page.js")
    assert first.headers["cache-control"] == "no-cache"
    again = await served.browser.get("/static/page.js", if_none_match=first.headers["etag"])
    assert (again.status, again.body) == (304, "")
    assert (await served.browser.get("/static/../app.py")).status == 404
    assert (await served.browser.get("/nowhere")).status == 404


async def test_the_first_update_is_complete_and_later_ones_say_what_changed(
    served: Served,
) -> None:
    await served.predict()
    async with served.browser.events() as updates:
        first = await anext(updates)
        assert first["set"]["matrix"]["rows"] == ["a"]
        assert first["set"]["matrix"]["columns"] == ["m"]
        row = first["set"]["row:a"]
        assert (row["state"], row["held"], row["slots"]) == ("up", 1, 2)
        assert row["cells"]["m"]["state"] == "ready"
        assert first["set"]["fleet"]["summary"].startswith("All is well. 1 node, 1 model loaded")
        assert first["set"]["problems"] == []
        later = await anext(updates)
        assert later["now"] > first["now"]
        assert "models" not in later["set"]
        await served.router.operations.drain("a")
        served.page.feed.nudge()
        changed = await _until(updates, lambda update: "problems" in update["set"])
        assert "Node a is drained" in changed["set"]["problems"][0]["what"]
        await served.router.operations.remove_node("a")
        served.page.feed.nudge()
        gone = await _until(updates, lambda update: update["unset"])
        assert gone["unset"] == ["row:a"]


@pytest.mark.slow
async def test_a_model_and_a_node_can_be_looked_at(served: Served) -> None:
    await served.predict()
    async with served.browser.events("model=m&node=a&q=a") as updates:
        parts = (await anext(updates))["set"]
        assert parts["model"]["state"]["present"] == 1
        assert [each["node"] for each in parts["model"]["replicas"]] == ["a"]
        assert [each["model"] for each in parts["node"]["replicas"]] == ["m"]
    async with served.browser.events("model=nothing&node=nobody") as updates:
        parts = (await anext(updates))["set"]
        assert parts["model"] == {"state": {"model": "nothing"}, "replicas": [], "hidden": 0}
        assert parts["node"] is None


@pytest.mark.slow
async def test_the_history_of_a_model_says_why_it_moved(served: Served) -> None:
    await served.predict()
    served.node.evict("m")
    await served.predict()
    history = (await served.browser.get("/history?model=m")).data
    assert [each["kind"] for each in history["entries"]] == ["loaded", "healed", "loaded"]
    unknown = await served.browser.get("/history?model=nn")
    assert (unknown.status, unknown.data["reason"]) == (409, "UNKNOWN_MODEL")


# Windows


@pytest.mark.slow
async def test_a_large_fleet_is_folded_to_what_has_something_to_see(sqlite_url: str) -> None:
    models = {f"m{n}": ModelSpec(f"m{n}", "fake") for n in range(30)}
    async with fleet(sqlite_url, models=models) as (router,):
        fill(router, 100, 30)

        async def seen(**query: str) -> Any:
            parts = view(await router.state.picture(), Window.parse(query))
            return json.loads(parts["matrix"]), parts

        matrix, _ = await seen()
        assert (matrix["rows"], matrix["hiddenRows"]) == ([], 100)
        router.table.set_state(router.table.nodes["gpu-7"], reachable=False, busy=True)
        for show in ("usual", "problems"):
            matrix, parts = await seen(show=show)
            assert (matrix["rows"], matrix["hiddenRows"]) == (["gpu-7"], 99)
            assert (len(matrix["columns"]), matrix["hiddenColumns"]) == (16, 14)
            assert json.loads(parts["row:gpu-7"])["held"] == 30
            assert len(json.loads(parts["row:gpu-7"])["cells"]) == 16
        matrix, _ = await seen(show="all", rows="60", columns="20")
        assert matrix["rows"][:4] == ["gpu-7", "gpu-0", "gpu-1", "gpu-2"]
        assert (len(matrix["rows"]), len(matrix["columns"])) == (60, 20)
        matrix, _ = await seen(q="GPU-42")
        assert (matrix["rows"], matrix["hiddenRows"]) == (["gpu-42"], 0)
        matrix, parts = await seen(q="m29")
        assert (matrix["columns"], matrix["hiddenRows"]) == (["m29"], 60)
        assert [each["model"] for each in json.loads(parts["models"])["list"]] == ["m29"]
        _, parts = await seen(model="m3", node="gpu-5")
        assert json.loads(parts["model"])["hidden"] == 60
        assert len(json.loads(parts["node"])["replicas"]) == 30


@pytest.mark.parametrize(
    ("query", "window"),
    [
        ({}, Window()),
        ({"show": "everything", "rows": "-1", "columns": "x"}, Window()),
        ({"rows": "99999", "columns": "9999"}, Window(columns=48)),
        ({"rows": "1", "columns": "\u0663"}, Window()),
        ({"q": f" {'A' * 500}"}, Window(query="a" * 199)),
    ],
)
def test_what_makes_no_sense_in_an_address_is_ignored(
    query: dict[str, str], window: Window
) -> None:
    assert Window.parse(query) == window


# Viewers


@pytest.mark.slow
async def test_states_are_built_only_while_somebody_looks_and_once_for_all(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "INTERVAL", 0.05)
    built = 0
    picture = served.router.state.picture

    async def counted() -> Any:
        nonlocal built
        built += 1
        return await picture()

    monkeypatch.setattr(served.page.feed, "_build", counted)
    assert built == 0
    async with served.browser.events() as one, served.browser.events() as two:
        for _ in range(5):
            await anext(one)
            await anext(two)
        assert 5 <= built < 10
        assert served.page.feed.viewers == 2
    await eventually(lambda: served.page.feed.viewers == 0)
    before = built
    await asyncio.sleep(0.2)
    assert built == before


@pytest.mark.slow
async def test_a_slow_viewer_is_sent_the_newest_state_only(served: Served) -> None:
    feed = served.page.feed
    async with feed.watching():
        updates = feed.updates(Window())
        await anext(updates)
        for _ in range(3):
            seen = feed.version
            feed.nudge()
            await eventually(lambda seen=seen: feed.version > seen)  # type: ignore[misc]
        newest = feed.newest
        assert newest is not None
        assert f'"now":{newest.fleet.now:.3f}' in await anext(updates)


@pytest.mark.slow
async def test_too_many_viewers_are_told_so(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "VIEWERS_LIMIT", 1)
    async with served.browser.events() as updates:
        await anext(updates)
        refused = await served.browser.get("/events")
        assert (refused.status, refused.data["reason"]) == (503, "OVERLOADED")
        assert "viewers are watching already" in refused.data["error"]


@pytest.mark.slow
async def test_a_state_that_cannot_be_built_does_not_end_the_stream(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "INTERVAL", 0.05)
    picture, failures = served.router.state.picture, iter([ZeroDivisionError(), None])

    async def failing() -> Any:
        error = next(failures, None)
        if error is not None:
            raise error
        return await picture()

    monkeypatch.setattr(served.page.feed, "_build", failing)
    async with served.browser.events() as updates:
        assert (await anext(updates))["set"]["fleet"]["nodes"] == 1


@pytest.mark.slow
async def test_closing_the_page_ends_the_streams_and_stops_at_once(sqlite_url: str) -> None:
    async with serving(sqlite_url) as served, served.browser.events() as updates:
        await anext(updates)
        await served.page.close()
        assert [update async for update in updates if update["unset"]] == []


# Buttons


@pytest.mark.slow
async def test_a_model_is_loaded_and_unloaded(served: Served) -> None:
    answer = await served.browser.post("/actions/load", {"model": "m"})
    assert (answer.status, answer.data) == (200, {"text": "m is loaded on a"})
    assert "m" in served.node.held
    answer = await served.browser.post("/actions/unload", {"model": "m", "node": "a"})
    assert answer.data == {"text": "m was unloaded from a"}
    assert not served.node.held
    answer = await served.browser.post("/actions/unload", {"model": "m"})
    assert answer.data == {"text": "no node held m"}


@pytest.mark.slow
async def test_a_long_load_continues_without_its_caller(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grpcerrors_router.web.actions.PATIENCE", 0.05)
    served.node.load_gate = asyncio.Event()
    for _ in range(2):
        answer = await served.browser.post("/actions/load", {"model": "m"})
        assert answer.data == {"text": "m is being loaded"}
    served.node.load_gate.set()
    await eventually(lambda: "m" in served.node.held)
    assert len(served.node.loads) == 1


@pytest.mark.slow
async def test_a_model_with_calls_in_flight_is_unloaded_only_by_force(served: Served) -> None:
    served.node.gate = asyncio.Event()
    call = asyncio.ensure_future(served.predict())
    await eventually(lambda: served.node.running["m"])
    refused = await served.browser.post("/actions/unload", {"model": "m", "node": "a"})
    assert (refused.status, refused.data["reason"]) == (409, "IN_USE")
    assert "calls in flight" in refused.data["error"]
    served.node.gate.set()
    await call
    forced = await served.browser.post("/actions/unload", {"model": "m", "force": True})
    assert forced.status == 200


@pytest.mark.slow
async def test_a_node_is_drained_and_undrained(served: Served) -> None:
    answer = await served.browser.post("/actions/drain", {"node": "a"})
    assert answer.data["text"].startswith("a is drained")
    assert served.router.table.nodes["a"].info.draining
    answer = await served.browser.post("/actions/drain", {"node": "a", "off": True})
    assert answer.data["text"] == "a takes requests again"
    assert not served.router.table.nodes["a"].info.draining


@pytest.mark.slow
async def test_a_failed_load_is_forgiven(served: Served) -> None:
    served.node.load_error = "no file"
    failed = await served.browser.post("/actions/load", {"model": "m"})
    assert (failed.status, failed.data["reason"]) == (409, "LOAD_FAILED")
    assert "no file" in failed.data["error"]
    served.node.load_error = ""
    answer = await served.browser.post("/actions/forgive", {"model": "m", "node": "a"})
    assert answer.data["text"].endswith("the next request tries again")
    answer = await served.browser.post("/actions/forgive", {})
    assert answer.data["text"] == "there was nothing to forgive"


MISTAKES: list[tuple[str, object, int, str]] = [
    ("load", {"model": "unknown"}, 409, "unknown model"),
    ("load", {}, 400, "must name the model"),
    ("drain", {"node": ["a"]}, 400, "must name the node"),
    ("drain", {"node": "nobody"}, 409, "nobody"),
    ("explode", {}, 404, "there is no action explode"),
    ("load", "[1]", 400, "not a JSON object"),
    ("load", "{", 400, "not a JSON object"),
    ("load", "[" * 10_000, 400, "not a JSON object"),
    ("load", {"model": "m" * 20_000}, 400, "more than 16384 bytes"),
]


@pytest.mark.slow
async def test_a_request_that_cannot_be_served_is_answered_in_words(
    served: Served,
) -> None:
    for action, sent, status, words in MISTAKES:
        answer = await served.browser.post(f"/actions/{action}", sent)
        assert answer.status == status, words
        assert words in answer.data["error"]


@pytest.mark.slow
async def test_a_bug_shows_no_internals(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_arguments: object) -> None:
        raise ValueError("select * from secrets")

    monkeypatch.setattr(served.router.operations, "forgive", broken)
    answer = await served.browser.post("/actions/forgive", {})
    assert (answer.status, answer.data["reason"]) == (500, "INTERNAL")
    assert "secrets" not in answer.body


# Whom it refuses


HOSTS = [
    ("127.0.0.1:8080", 200),
    ("[::1]:8080", 200),
    ("localhost", 200),
    ("evil.example", 421),
    ("evil.example:8080", 421),
    ("127.0.0.1.evil.example", 421),
    ("", 421),
]


async def test_a_name_that_others_can_point_here_is_refused(
    served: Served,
) -> None:
    for host, status in HOSTS:
        for path in ("/", "/static/page.js", "/history?model=m"):
            assert (await served.browser.get(path, host=host)).status == status, host


FOREIGN: list[dict[str, Any]] = [
    {"origin": None},
    {"origin": "null"},
    {"origin": "http://evil.example"},
    {"origin": "https://127.0.0.1"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"content_type": "text/plain"},
    {"content_type": "application/x-www-form-urlencoded"},
]


async def test_another_site_cannot_press_the_buttons(
    served: Served,
) -> None:
    for headers in FOREIGN:
        answer = await served.browser.post("/actions/load", {"model": "m"}, **headers)
        assert answer.status in (400, 403), headers
    assert not served.node.loads
    assert (await served.browser.get("/actions/load")).status == 405


@pytest.mark.slow
async def test_another_site_cannot_watch_but_may_have_a_link(served: Served) -> None:
    elsewhere: dict[str, Any] = {"sec_fetch_site": "cross-site"}
    for path in ("/events", "/history?model=m", "/static/page.js"):
        assert (await served.browser.get(path, **elsewhere)).status == 403
    link = await served.browser.get("/", **elsewhere, sec_fetch_mode="navigate")
    assert link.status == 200
    assert "access-control-allow-origin" not in link.headers


async def test_a_proxy_may_serve_tls_in_front_of_the_page(served: Served) -> None:
    origin = f"https://{served.browser.address}"
    reply = await served.browser.post("/actions/load", {"model": "m"}, origin=origin)
    assert reply.status == 200


@pytest.mark.slow
async def test_the_name_that_http_gives_is_the_routers_own(sqlite_url: str) -> None:
    async with fleet(sqlite_url) as (router,):
        server = PageServer(router, ("localhost", 0))
        browser = Browser((await server.start()).split("/")[2])
        try:
            assert (await browser.get("/", host="LOCALHOST:1")).status == 200
        finally:
            await server.stop(1)
        with pytest.raises(OSError, match=r"\w"):
            await PageServer(router, ("host.invalid", 0)).start()


# Logging in


@pytest.mark.slow
async def test_over_tls_the_cookie_is_secure_and_the_origin_https(
    sqlite_url: str, tokens: Path, tmp_path: Path
) -> None:
    authority = Authority.create("page")
    pair = authority.issue("127.0.0.1").write(tmp_path, "router")
    tls = ServerTls(*pair, warn=print)
    trusting = ssl.create_default_context(cafile=authority.write(tmp_path / "ca.pem"))
    async with serving(sqlite_url, Access(tokens), tls, trusting) as served:
        browser = served.browser
        entered = await browser.post("/login", "token=secret")
        cookie = entered.headers["set-cookie"]
        assert "Secure" in cookie
        browser.cookie = cookie.partition(";")[0]
        assert (await browser.post("/actions/load", {"model": "m"})).status == 200
        plain = f"http://{browser.address}"
        assert (await browser.post("/actions/load", {"model": "m"}, origin=plain)).status == 403
        async with browser.events() as updates:
            assert (await anext(updates))["set"]["fleet"]["nodes"] == 1


@pytest.mark.slow
async def test_with_tokens_only_operators_see_anything(sqlite_url: str, tokens: Path) -> None:
    async with serving(sqlite_url, Access(tokens)) as served:
        browser = served.browser
        assert (await browser.get("/")).headers["location"] == "/login"
        for path in ("/events", "/history?model=m"):
            assert (await browser.get(path)).status == 401
        assert (await browser.post("/actions/load", {"model": "m"})).status == 401
        form = await browser.get("/login", host="any.example")
        assert (form.status, " hidden" in form.body) == (200, True)
        for wrong in ("token=other", "token=wrong", "token=", "", "token=%C3%A9", "\x00=é"):
            refused = await browser.post("/login", wrong)
            assert (refused.status, " hidden" in refused.body) == (401, False)
            assert "set-cookie" not in refused.headers
        assert not served.node.loads


async def test_an_operator_logs_in_and_out(sqlite_url: str, tokens: Path) -> None:
    async with serving(sqlite_url, Access(tokens)) as served:
        browser = served.browser
        entered = await browser.post("/login", "token=secret")
        assert (entered.status, entered.headers["location"]) == (303, "/")
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert "secret" not in cookie
        browser.cookie = cookie.partition(";")[0]
        assert "<body data-login>" in (await browser.get("/")).body
        loaded = await browser.post("/actions/load", {"model": "m"})
        assert loaded.status == 200
        assert (await browser.post("/logout", "", origin="http://evil.example")).status == 403
        assert (await browser.post("/logout", "")).headers["location"] == "/login"
        assert (await browser.get("/events")).status == 401


@pytest.mark.slow
async def test_a_session_ends_with_its_token(
    sqlite_url: str, tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = Access(tokens)
    async with serving(sqlite_url, access) as served:
        browser = served.browser
        entered = await browser.post("/login", "token=secret")
        browser.cookie = entered.headers["set-cookie"].partition(";")[0]
        async with browser.events() as updates:
            await anext(updates)
            editing.revoke(tokens, "boss")
            access.reload()
            served.page.feed.nudge()
            assert [update async for update in updates if update["unset"]] == []
        assert (await browser.get("/events")).status == 401


@pytest.mark.slow
async def test_a_session_ends_after_its_lifetime_and_there_are_not_too_many(
    sqlite_url: str, tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(sqlite_url, Access(tokens)) as served:
        browser = served.browser

        async def enter() -> str:
            entered = await browser.post("/login", "token=secret")
            return entered.headers["set-cookie"].partition(";")[0]

        monkeypatch.setattr("grpcerrors_router.web.sessions.SESSIONS_LIMIT", 1)
        first, second = await enter(), await enter()
        browser.cookie = first
        assert (await browser.get("/history?model=m")).status == 401
        browser.cookie = second
        assert (await browser.get("/history?model=m")).status == 200
        monkeypatch.setattr("grpcerrors_router.web.sessions.LIFETIME", -1)
        browser.cookie = await enter()
        assert (await browser.get("/history?model=m")).status == 401


async def _until(updates: AsyncIterator[Any], found: Any) -> Any:
    async with asyncio.timeout(60):
        async for update in updates:
            if found(update):
                return update
    raise AssertionError("the stream has ended")


# As a process


@pytest.mark.slow
async def test_serve_stops_while_somebody_watches(tmp_path: Path) -> None:
    async with processes.fleet(tmp_path, MODELS) as made:
        gateway = await made.gateway("127.0.0.1:0", "--http", "127.0.0.1:0")
        browser = Browser(gateway.addresses[-1])
        async with browser.events() as updates:
            kinds = [each["kind"] for each in (await anext(updates))["set"]["problems"]]
            assert kinds == ["no-nodes"]
            assert await gateway.stop() == 0
            assert [update async for update in updates if update["unset"]] == []


@pytest.mark.slow
async def test_an_address_that_cannot_be_served_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(MODELS)

    async def refused(http: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "grpcerrors_router", "serve", "--listen", "127.0.0.1:0"),
            *("--models", str(tmp_path / "models.toml"), "--http", http),
            *("--registry", f"sqlite:///{tmp_path}/r.db"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate()
        assert process.returncode == 2
        return err.decode()

    taken = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    first, second, third = await asyncio.gather(
        refused(f"127.0.0.1:{port}"), refused("nowhere"), refused("0.0.0.0:0")
    )
    taken.close()
    assert f"--http 127.0.0.1:{port}: the port is taken" in first
    assert "--http must be HOST:PORT" in second
    assert "--http 0.0.0.0:0: other machines can reach" in third


@pytest.mark.slow
async def test_a_router_without_the_page_does_not_import_it() -> None:
    program = (
        "import sys, grpcerrors_router.cli.serving; "
        "print([name for name in ('starlette', 'uvicorn') if name in sys.modules])"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.decode().strip() == "[]"
