"""The report of a check for programs: JSON, JUnit's XML, and Markdown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from grpcerrors.cli import _summary
from grpcerrors.cli._findings import Finding, conforms
from grpcerrors.cli._text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpcerrors.cli._findings import Answer, Report

    # What prints reports, and what prints why nothing could be checked.
    Format = tuple[Callable[[Sequence[Report], str, bool], str], Callable[[str, str], str]]

_VERSION = 2


def _json(reports: Sequence[Report], address: str, _: bool) -> str:
    services = [
        {
            "service": report.service,
            "protocol": _summary.protocol_of(report),
            "source": report.source,
            "model": report.model or None,
            "rpcs": [_row(answer) for answer in report.answers],
            "uncalled": report.uncalled,
        }
        for report in reports
    ]
    return _dumped(address, conforming=conforms(reports), services=services)


def _row(answer: Answer) -> dict[str, Any]:
    row = answer._asdict()
    del row["seconds"]
    verdict = row.pop("finding").value
    code = answer.code and answer.code.name
    return {"rpc": answer.rpc, "verdict": verdict} | row | {"code": code}


def _json_failure(why: str, address: str) -> str:
    return _dumped(address, error=why)


def _dumped(address: str, **fields: Any) -> str:
    return json.dumps({"version": _VERSION, "address": address, **fields}, indent=2)


def _junit(reports: Sequence[Report], address: str, all_rows: bool) -> str:
    suites = ET.Element("testsuites", name="grpcerrors check")
    for report in reports:
        rows = report.rows(all_rows=all_rows)
        suite = _suite(suites, report.service, address, rows)
        for answer in rows:
            case = ET.SubElement(
                suite,
                "testcase",
                classname=report.service,
                name=printable(answer.rpc),
                time=f"{answer.seconds:.3f}",
            )
            if answer.finding is Finding.NOT_IMPLEMENTED:
                ET.SubElement(case, "skipped", message=answer.finding.value)
            elif answer.finding is not Finding.TYPED:
                said = f"{answer.code.name if answer.code else 'no end'}: {answer.message}"
                failure = ET.SubElement(
                    case,
                    "failure",
                    type=answer.finding.value,
                    message=printable(f"{answer.finding.value}: {answer.why or said}"),
                )
                failure.text = f"{printable(said)}\n{printable(answer.again)}"
    return _xml(suites)


def _suite(suites: ET.Element, name: str, address: str, answers: Sequence[Answer]) -> ET.Element:
    skipped = sum(answer.finding is Finding.NOT_IMPLEMENTED for answer in answers)
    typed = sum(answer.finding is Finding.TYPED for answer in answers)
    return ET.SubElement(
        suites,
        "testsuite",
        name=name,
        hostname=address,
        tests=str(len(answers)),
        failures=str(len(answers) - skipped - typed),
        errors="0",
        skipped=str(skipped),
        time=f"{sum(answer.seconds for answer in answers):.3f}",
    )


def _junit_failure(why: str, address: str) -> str:
    suites = ET.Element("testsuites", name="grpcerrors check")
    suite = _suite(suites, "grpcerrors check", address, [])
    suite.set("tests", "1")
    suite.set("errors", "1")
    case = ET.SubElement(suite, "testcase", classname="grpcerrors", name="check", time="0.000")
    ET.SubElement(case, "error", message=printable(why))
    return _xml(suites)


def _xml(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False)


def _markdown(reports: Sequence[Report], address: str, all_rows: bool) -> str:
    lines = [f"### `grpcerrors check`: {'conforming' if conforms(reports) else 'not conforming'}"]
    for report in reports:
        lines += ["", f"{_code(_summary.title(report, address))}: {_summary.counts(report)}"]
        if rows := report.rows(all_rows=all_rows):
            lines += ["", "| RPC | code | text | verdict |", "|---|---|---|---|"]
            lines += [
                f"| {_code(one.rpc)} | {one.code.name if one.code else '-'} |"
                f" {_code(one.message)} | {one.finding.value} |"
                for one in rows
            ]
        if said := list(_summary.meanings(report)):
            lines += ["", *(f"- {_escaped(line)}" for line in said)]
    lines += [f"\n{_escaped(line)}" for line in _summary.advice(reports)]
    if commands := [command for report in reports for command in _summary.commands(report)]:
        lines += ["", "```sh", *map(printable, commands), "```"]
    return "\n".join(lines)


def _markdown_failure(why: str, address: str) -> str:
    return f"### `grpcerrors check`: nothing checked\n\n{_code(address)}: {_escaped(why)}"


def _code(text: str) -> str:
    """Return text of a server as code in a cell of a table, where nothing in it has a meaning."""
    safe = printable(text).replace("`", "'").replace("|", "\\|")
    return f"`{safe}`" if safe.strip() else ""


def _escaped(text: str) -> str:
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#" else char for char in printable(text))


FORMATS: dict[str, Format] = {
    "json": (_json, _json_failure),
    "junit": (_junit, _junit_failure),
    "markdown": (_markdown, _markdown_failure),
}
