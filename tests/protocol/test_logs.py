"""The log lines of the router and of the backends."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from grpcerrors_protocol import logs
from grpcerrors_protocol.logs import Format, Level, configure, request_id

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _unconfigured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logs, "_process", {})
    before, root = structlog.get_config(), logging.getLogger()
    handlers = list(root.handlers)
    yield
    root.handlers[:] = handlers
    structlog.reset_defaults()
    structlog.configure(**before)


def written(capsys: Any, form: Format | None, **values: object) -> str:
    configure(Level.INFO, form)
    log = structlog.get_logger("router")
    log.debug("not this")
    log.info("loaded", **values)
    text: str = capsys.readouterr().err
    return text


@pytest.mark.parametrize("closed", [True, False])
def test_a_log_that_cannot_be_written_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    """As when `serve 2>&1 | head` has read enough: else every load would fail."""
    read, write = os.pipe()
    os.close(read)
    broken = os.fdopen(write, "w")
    monkeypatch.setattr("sys.stderr", broken)
    configure()
    if closed:
        broken.close()
    structlog.get_logger("router").info("loading")
    logging.getLogger("library").warning("busy")
    with contextlib.suppress(BrokenPipeError):
        broken.close()


def test_a_console_line_leaves_out_what_is_empty(capsys: Any) -> None:
    line = written(capsys, Format.CONSOLE, model="m", reason="", seconds=0.0)
    assert "model=m" in line
    assert "seconds=0.0" in line
    assert "reason" not in line
    assert line.count("\n") == 1


def test_a_console_line_shows_what_a_terminal_would_obey(capsys: Any) -> None:
    line = written(capsys, Format.CONSOLE, reason="\x1b[31mred\nsecond line\0")
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert "x1b[31mred" in line
    assert "second line" in line


def test_a_traceback_shows_no_local_variables(capsys: Any) -> None:
    """rich's does, and takes 11 s for a text of 40 KB."""
    token = "s3cret"
    try:
        _ = len(token) / 0
    except ZeroDivisionError:
        text = written(capsys, Format.CONSOLE, exc_info=True)
    assert "ZeroDivisionError: division by zero" in text
    assert text.count(token) == 0


@pytest.mark.parametrize("form", [Format.JSON, None])
def test_json_is_what_a_log_gets_that_is_no_terminal(capsys: Any, form: Format | None) -> None:
    line = json.loads(written(capsys, form, reason="\x1b[31mred", node="", where=Level.INFO))
    assert line.pop("timestamp")
    assert line == {"event": "loaded", "level": "info", "reason": "\x1b[31mred", "where": "info"}


def test_an_exception_is_in_the_line(capsys: Any) -> None:
    configure(Level.INFO, Format.JSON)
    try:
        int("1" * 5000)
    except ValueError:
        structlog.get_logger("router").exception("failed")
    line = json.loads(capsys.readouterr().err)
    assert "ValueError: Exceeds the limit" in line["exception"]


def test_what_a_library_logs_has_the_same_format(capsys: Any) -> None:
    configure(Level.INFO, Format.JSON)
    logging.getLogger("some.library").info("not this")
    logging.getLogger("some.library").warning("retrying in %d s", 3)
    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp")
    assert line == {"event": "retrying in 3 s", "level": "warning", "logger": "some.library"}


def test_a_traceback_shows_what_a_terminal_would_obey(capsys: Any) -> None:
    try:
        raise ValueError("\x1b[31mred")  # noqa: TRY301
    except ValueError:
        text = written(capsys, Format.CONSOLE, exc_info=True)
    assert "\x1b" not in text
    assert "ValueError: \\x1b[31mred" in text


@pytest.mark.parametrize(
    ("sent", "id_"),
    [
        ([("x-request-id", "a-1")], "a-1"),
        ([("x-request-id", "a" * 129)], ""),
        ([("x-request-id", "two words")], ""),
        ([("x-request-id", "\x1b[31m")], ""),
        ([("x-request-id-bin", b"a"), ("x-request-id", "b")], "b"),
        ([("x-request-id", "")], ""),
        ([], ""),
    ],
)
def test_the_id_of_a_request_is_the_callers_if_it_is_sane(sent: Any, id_: str) -> None:
    assert request_id(sent) == id_


def test_a_line_names_the_process_unless_it_is_about_another_one(capsys: Any) -> None:
    logs.describe_process(node="left")
    assert json.loads(written(capsys, Format.JSON))["node"] == "left"
    assert json.loads(written(capsys, Format.JSON, node="right"))["node"] == "right"
