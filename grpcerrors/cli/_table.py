"""The report of a check as a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from grpcerrors.cli import _summary
from grpcerrors.cli._findings import Finding
from grpcerrors.cli._text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from grpcerrors.cli._findings import Answer, Report

WIDTH = 100
_STYLES = {
    Finding.TYPED: "green",
    Finding.TEXT_ONLY: "yellow",
    Finding.CODE_ONLY: "yellow",
    Finding.INVISIBLE: "red",
    Finding.WRONG: "red",
    Finding.TIMED_OUT: "red",
    Finding.NOT_IMPLEMENTED: "dim",
}


def show(reports: Sequence[Report], address: str, *, all_rows: bool) -> None:
    """Print the tables, the counts, and what to do next."""
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    for part in _parts(reports, address, all_rows=all_rows):
        console.print(part, crop=False, soft_wrap=getattr(part, "no_wrap", None))


def _parts(reports: Sequence[Report], address: str, *, all_rows: bool) -> Iterator[RenderableType]:
    for report in reports:
        if rows := report.rows(all_rows=all_rows):
            yield _table(rows)
        yield Text(f"{_summary.title(report, address)}:")
        yield Text(f"  {_summary.counts(report)}")
        yield from (Text(printable(f"  {line}")) for line in _summary.meanings(report))
    yield from (Text(printable(line)) for line in _summary.advice(reports))
    if commands := [command for report in reports for command in _summary.commands(report)]:
        yield Text("To call one of them again:")
        # Each on one line, for copying.
        yield from (
            Text(printable(f"  {each}"), no_wrap=True, overflow="ignore") for each in commands
        )


def _table(rows: list[Answer]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    table.add_column("RPC", no_wrap=True)
    table.add_column("code", no_wrap=True)
    table.add_column("text", no_wrap=True, ratio=1)
    table.add_column("verdict", no_wrap=True)
    for answer in rows:
        code = answer.code.name if answer.code else "-"
        verdict = Text(answer.finding.value, _STYLES[answer.finding])
        table.add_row(Text(printable(answer.rpc)), code, Text(printable(_text(answer))), verdict)
    return table


def _text(answer: Answer) -> str:
    if answer.messages and answer.code not in (None, grpc.StatusCode.OK):
        return f"(after {answer.messages} messages) {answer.message}"
    return answer.message
