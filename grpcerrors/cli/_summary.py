"""What the report of a check says in words: the counts, the reasons, and what to do."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import grpc

from grpcerrors import MODEL_LOADING
from grpcerrors.cli._findings import Finding, conforms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from grpcerrors.cli._findings import Answer, Report

_MEANINGS = {
    Finding.TEXT_ONLY: "a router has to guess from the words",
    Finding.CODE_ONLY: "a router has to guess from the code",
    Finding.INVISIBLE: "no router can see that the model is not loaded",
    Finding.WRONG: "a router is misled",
    Finding.TIMED_OUT: "no answer; a backend without a model should answer at once",
}
_DENIALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


def counts(report: Report) -> str:
    """Return how many answers have each verdict."""
    found = Counter(answer.finding for answer in report.answers)
    shown = ", ".join(f"{found[each]} {each.value}" for each in Finding if found[each])
    return shown or "none"


def meanings(report: Report) -> Iterator[str]:
    """Yield what each verdict in the report means, and why answers are wrong."""
    found = {answer.finding for answer in report.answers}
    yield from (f"{each.value}: {meaning}" for each, meaning in _MEANINGS.items() if each in found)
    reasons: dict[str, list[str]] = {}
    for answer in report.answers:
        if answer.why:
            reasons.setdefault(answer.why, []).append(answer.rpc)
    yield from (f"{', '.join(rpcs)}: {why}" for why, rpcs in reasons.items())


def advice(reports: Sequence[Report]) -> Iterator[str]:
    """Yield whether the backend conforms, and what to do next."""
    for report in reports:
        if report.uncalled:
            yield (
                f"Not called, because they may change something: {', '.join(report.uncalled)}. Name"
                " those that need a model with --method, or call all with --all."
            )
    if any(answer.condition == MODEL_LOADING.reason for answer in _all(reports)):
        yield "A load is under way: wait until it has ended, and check again."
    if conforms(reports):
        yield f"Conforming: every implemented RPC answers with the typed error{_proxies(reports)}."
    elif not any(report.implemented for report in reports):
        yield (
            "Not conforming: no RPC that was called is implemented. Does this backend have one"
            " that needs a model? Are --protocol and --service right?"
        )
    elif any(report.loaded for report in reports):
        yield (
            "A model is loaded, as the backend says, so these answers prove nothing: restart the"
            " backend or unload the model, and check again."
        )
    else:
        for report in reports:
            if report.findings:
                yield from _cure(report)


def _proxies(reports: Sequence[Report]) -> str:
    again = [answer.resendable for answer in _all(reports) if answer.finding is Finding.TYPED]
    if all(again):
        return ", and proxies can send each refused call again"
    return f". Proxies can send {sum(map(bool, again))} of {len(again)} again"


def _all(reports: Sequence[Report]) -> Iterator[Answer]:
    return (answer for report in reports for answer in report.answers)


def _cure(report: Report) -> Iterator[str]:
    known, findings = report.known, report.findings
    codes = {answer.code for answer in findings}
    if codes.intersection(_DENIALS):
        yield "Denied: send what the backend asks for, as --metadata 'authorization=Bearer TOKEN'."
    if known is None or known.protocol.service != report.service:
        yield "Not conforming. CONTRACT.md says what each RPC must answer."
        return
    control = known.rpcs - known.called
    refusing = [answer.rpc for answer in findings if answer.rpc in control]
    if refusing:
        yield (
            f"Not conforming: {', '.join(refusing)} must answer without a model. In Python,"
            f" {known.guard} lets them pass."
        )
    if len(refusing) < len(findings):
        if report.model and grpc.StatusCode.NOT_FOUND in codes:
            yield (
                f"If the backend does not know any model {report.model!r}, name one that it could"
                " load and has not loaded with --model."
            )
        yield (
            f"Not conforming. In Python, grpc.server(pool, interceptors=[{known.guard}]) makes"
            " every RPC typed; for other languages see CONTRACT.md."
        )


def commands(report: Report) -> list[str]:
    """Return a shell command for each finding, which calls the RPC in the same way."""
    return [] if report.loaded else [answer.again for answer in report.findings]


def title(report: Report, address: str) -> str:
    """Return what was checked, and how."""
    asked = f", asked for model {report.model}" if report.model else ""
    return f"{report.service} at {address}{asked}, RPCs by {report.source}"


def protocol_of(report: Report) -> str | None:
    """Return the name of the protocol as --protocol takes it; None for none."""
    return report.known.name if report.known else None
