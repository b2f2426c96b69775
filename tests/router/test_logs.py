"""The log lines of the router's commands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from grpcerrors_router.logs import Format, Level, configure

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _unconfigured() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.reset_defaults()
    structlog.configure(**before)


def written(capsys: Any, form: Format | None, **values: object) -> str:
    configure(Level.INFO, form)
    log = structlog.get_logger("router")
    log.debug("not this")
    log.info("loaded", **values)
    text: str = capsys.readouterr().err
    return text


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
