"""The logging of the router's and the backends' programs: one line for each event, on stderr.

They install structlog, which this module needs.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import secrets
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO, cast

from grpcerrors_protocol.metadata import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from structlog.typing import ExcInfo, Processor

_SANE_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)


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
    """Make structlog, and the loggers of Python libraries, write to stderr.

    Args:
        level: the lowest level that is written; libraries write warnings and errors only.
        form: None for console on a terminal, and json elsewhere.
    """
    import structlog  # noqa: PLC0415 - commands that do not log start without it

    is_terminal = sys.stderr.isatty()
    form = form or (Format.CONSOLE if is_terminal else Format.JSON)
    console = structlog.dev.ConsoleRenderer(
        colors=is_terminal, exception_formatter=_write_traceback
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
            _add_process,
            drop_empty,
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.name]
        ),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Lossy(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    forwarder = _Forwarder(structlog.get_logger())
    forwarder.addFilter(_is_news)
    logging.getLogger().addHandler(forwarder)


class _Lossy(io.TextIOBase):
    """Writes to a stream as long as that works: no request must fail because of the log.

    The reader of a pipe may have gone, or the disk may be full.
    """

    def __init__(self, to: TextIO) -> None:
        self._to = to

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._to.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._to.flush()


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for what gRPC logs, with a traceback, about a caller that has just gone."""
    return not (
        record.name == "grpc._cython.cygrpc"
        and record.getMessage().startswith("ExecuteBatchError raised in core")
    )


_process: dict[str, str] = {}


def describe_process(**names: str) -> None:
    """Add these names, such as `node`, to each later line that does not have them."""
    _process.update(names)


def _add_process(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> Any:
    return {**line, **{key: name for key, name in _process.items() if key not in line}}


class _Forwarder(logging.Handler):
    """Writes what a library logs in the same format."""

    def __init__(self, log: Any) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._log.log(
                record.levelno,
                record.getMessage(),
                logger=record.name,
                exc_info=record.exc_info or None,
            )
        except Exception:  # noqa: BLE001 - as every handler of `logging`
            self.handleError(record)


def request_id(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the id that a caller has given its request by `x-request-id`.

    Returns "" if there is none, or if it is not 1 to 128 letters, digits and characters of
    `_.:/+=@-`: an id is written to logs and shown on pages.
    """
    for key, value in metadata:
        if key == REQUEST_ID and isinstance(value, str) and _SANE_ID.fullmatch(value):
            return value
    return ""


def new_request_id() -> str:
    """Return an id for a request that has none."""
    return secrets.token_hex(8)


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


def _write_traceback(to: Any, error: ExcInfo) -> None:
    # Not rich's traceback, which shows local variables, and takes minutes for a text of 100 KB.
    import structlog  # noqa: PLC0415 - as above

    plain = io.StringIO()
    structlog.dev.plain_traceback(plain, error)
    to.write("\n".join(map(_escaped, plain.getvalue().split("\n"))))
