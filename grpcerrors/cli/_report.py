"""How a conformance check is told: a table for people, JSON for machines."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
from rich import box
from rich.table import Table
from rich.text import Text

from grpcerrors.cli._probe import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from grpcerrors.cli._probe import Answer, Report, Target

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
_MEANINGS = {
    Finding.TEXT_ONLY: "a router has to guess from the words",
    Finding.CODE_ONLY: "a router has to guess from the code",
    Finding.INVISIBLE: "no router can see that the model is not loaded",
    Finding.WRONG: "says something else than that the model is not loaded, or under a wrong code",
    Finding.TIMED_OUT: "no answer; a backend without a model should answer at once",
}
_REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


def printable(text: str) -> str:
    """Escape what would steer a terminal: a server's text is not to be trusted."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def as_json(target: Target, report: Report) -> dict[str, Any]:
    """Return the report as JSON; docs/check.md describes it."""
    return {
        "version": 1,
        "address": target.address,
        "service": target.service,
        "source": report.source,
        "conforming": report.conforming,
        "rpcs": [
            {
                "rpc": answer.rpc,
                "verdict": answer.finding.value,
                "code": answer.code and answer.code.name,
                "message": answer.message,
                "messages": answer.messages,
                "condition": answer.condition,
                "evidence": answer.evidence,
            }
            for answer in report.answers
        ],
    }


def as_text(target: Target, report: Report) -> Iterator[RenderableType]:
    """Yield what to print: the table, the count, and what to do next."""
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    table.add_column("RPC", no_wrap=True)
    table.add_column("code", no_wrap=True)
    table.add_column("text", no_wrap=True, ratio=1)
    table.add_column("verdict", no_wrap=True)
    for answer in report.answers:
        code = answer.code.name if answer.code else "-"
        verdict = Text(answer.finding.value, _STYLES[answer.finding])
        table.add_row(Text(printable(answer.rpc)), code, Text(printable(_said(answer))), verdict)
    yield table
    counts = Counter(answer.finding for answer in report.answers)
    told = ", ".join(f"{counts[finding]} {finding.value}" for finding in Finding if counts[finding])
    yield Text(f"{target.service} at {target.address}, RPCs by {report.source}:")
    yield Text(f"  {told or 'none'}")
    for finding in (finding for finding in _MEANINGS if counts[finding]):
        yield Text(f"  {finding.value}: {_MEANINGS[finding]}")
    yield from map(Text, _advice(report))


def _said(answer: Answer) -> str:
    if answer.messages and answer.code not in (None, grpc.StatusCode.OK):
        return f"(after {answer.messages} messages) {answer.message}"
    return answer.message


def _advice(report: Report) -> Iterator[str]:
    if report.conforming:
        yield "Conforming: every implemented RPC says that the model is not loaded, typed."
        return
    if not report.implemented:
        yield (
            "Not conforming: no RPC that was called is implemented. Is --service right? Name the"
            " RPCs with --method, or serve reflection."
        )
        return
    if any(answer.code in _REFUSALS for answer in report.implemented):
        yield "Refused: send what the backend asks for, as --metadata 'authorization=Bearer TOKEN'."
    yield (
        "Not conforming. In Python, grpc.server(pool, interceptors=[ModelGuard(NAME)]) makes every"
        " RPC typed; for other languages see CONTRACT.md."
    )
