"""The logging of the router's commands: one line for each event, on stderr."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from structlog.typing import Processor


class Level(StrEnum):
    """The lowest level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Format(StrEnum):
    """The format of log lines."""

    CONSOLE = "console"
    JSON = "json"


def configure(level: Level = Level.INFO, form: Format | None = None) -> None:
    """Make structlog write to stderr.

    Args:
        level: the lowest level that is written.
        form: None for console on a terminal, and json elsewhere.
    """
    import structlog  # noqa: PLC0415 - commands that do not log start without it

    is_terminal = sys.stderr.isatty()
    form = form or (Format.CONSOLE if is_terminal else Format.JSON)
    # Not rich's traceback, which shows local variables, and takes minutes for a text of 100 KB.
    console = structlog.dev.ConsoleRenderer(
        colors=is_terminal, exception_formatter=structlog.dev.plain_traceback
    )
    render: list[Processor] = (
        [escape, console]
        if form is Format.CONSOLE
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            drop_empty,
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.name]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def drop_empty(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> Any:
    """Leave out empty values, such as the reason of a load that succeeded."""
    return {key: value for key, value in line.items() if value not in ("", None)}


def escape(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> Any:
    """Escape control characters, which a terminal would obey: texts may come from a node."""
    return {
        key: _escaped(value) if isinstance(value, str) else value for key, value in line.items()
    }


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
