"""How a conformance check is printed: a table for people, JSON for programs."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
from rich import box
from rich.table import Table
from rich.text import Text

from grpcerrors.cli._probe import Finding
from grpcerrors.cli._rpcs import SERVICE
from grpcerrors.cli._text import printable

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
    Finding.WRONG: "a router is misled",
    Finding.TIMED_OUT: "no answer; a backend without a model should answer at once",
}
_REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


def as_json(target: Target, report: Report) -> dict[str, Any]:
    """Return the report as JSON; docs/check.md describes it."""
    return {
        "version": 1,
        "address": target.server.address,
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
                "why": answer.why,
            }
            for answer in report.answers
        ],
        "uncalled": report.uncalled,
    }


def as_text(target: Target, report: Report, *, all_rows: bool) -> Iterator[RenderableType]:
    """Yield what to print: the table, the counts, and what to do next."""
    rows = report.answers if all_rows else report.implemented
    if rows:
        yield _table(rows)
    counts = Counter(answer.finding for answer in report.answers)
    shown = ", ".join(
        f"{counts[finding]} {finding.value}" for finding in Finding if counts[finding]
    )
    yield Text(f"{target.service} at {target.server.address}, RPCs by {report.source}:")
    yield Text(f"  {shown or 'none'}")
    for finding in (finding for finding in _MEANINGS if counts[finding]):
        yield Text(f"  {finding.value}: {_MEANINGS[finding]}")
    for answer in report.answers:
        if answer.why:
            yield Text(printable(f"  {answer.rpc}: {answer.why}"))
    yield from map(Text, _advice(target, report))
    if report.implemented and not report.conforming and not report.loaded:
        # On one line, for copying.
        yield Text(f"Check again: {_again(target, report)}", no_wrap=True, overflow="ignore")


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


def _advice(target: Target, report: Report) -> Iterator[str]:
    if report.uncalled:
        yield (
            f"Not called, because they may change something: {', '.join(report.uncalled)}. Name"
            " those that need a model with --method, or call all with --all."
        )
    if report.conforming:
        yield "Conforming: every implemented RPC answers with the typed error."
        return
    if not report.implemented:
        yield (
            "Not conforming: no RPC that was called is implemented. Does this backend have one"
            " that needs a model? Is --service right?"
        )
        return
    if report.loaded:
        yield (
            "A model is loaded, according to Status, so these answers prove nothing: restart the"
            " backend or Free the model, and check again."
        )
        return
    if any(answer.code in _REFUSALS for answer in report.implemented):
        yield "Refused: send what the backend asks for, as --metadata 'authorization=Bearer TOKEN'."
    if target.service == SERVICE:
        yield (
            "Not conforming. In Python, grpc.server(pool, interceptors=[ModelGuard(NAME)]) makes"
            " every RPC typed; for other languages see CONTRACT.md."
        )
    else:
        yield "Not conforming. CONTRACT.md says what each RPC must answer."


def _again(target: Target, report: Report) -> str:
    """Return the command that calls the failed RPCs again, without headers, which may be secret."""
    words = ["grpcerrors", "check", target.server.address]
    if target.service != SERVICE:
        words += ["--service", target.service]
    for answer in report.implemented:
        if answer.finding is not Finding.TYPED:
            words += ["--method", answer.rpc]
    return shlex.join(words)
