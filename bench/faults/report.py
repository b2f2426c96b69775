"""Results of the scenarios: requests, failures, and the figures to reach."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.faults.traffic import Answer

OK = "OK"


@dataclass(frozen=True)
class Check:
    """A required figure, and the measured one."""

    what: str
    wanted: str
    measured: str
    passed: bool


@dataclass
class Result:
    """The result of a scenario. `lost` counts requests without a correct answer. Times are in s."""

    scenario: str
    sent: int = 0
    ok: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    twice: int = 0
    loads: int = 0
    heals: int = 0
    p50: float = 0.0
    p99: float = 0.0
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.sent - self.ok

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def count(self, answers: Iterable[Answer]) -> None:
        """Add the answers of callers."""
        answers = list(answers)
        outcomes = Counter(answer.outcome for answer in answers)
        self.sent += len(answers)
        self.ok += outcomes.pop(OK, 0)
        for outcome, number in outcomes.items():
            self.failed[outcome] = self.failed.get(outcome, 0) + number
        details = Counter(answer.detail for answer in answers if answer.detail)
        self.notes += [f"{number} x {detail}" for detail, number in details.most_common(5)]
        took = sorted(answer.seconds for answer in answers if answer.outcome == OK)
        if took:
            self.p50 = took[len(took) // 2]
            self.p99 = took[int(len(took) * 0.99)]

    def failures(self, word: str) -> int:
        """Count the failures whose code or reason contains `word`."""
        return sum(number for outcome, number in self.failed.items() if word in outcome)

    def check(self, what: str, wanted: str, measured: object, *, passed: bool) -> None:
        self.checks.append(Check(what, wanted, str(measured), passed))

    def check_none(self, what: str, measured: int) -> None:
        self.check(what, "0", measured, passed=measured == 0)

    def check_share(self, what: str, part: int, whole: int, at_least: float) -> None:
        share = part / whole if whole else 0.0
        passed = share >= at_least
        self.check(what, f">= {at_least:.1%}", f"{share:.2%} ({part} of {whole})", passed=passed)

    def as_data(self) -> dict[str, Any]:
        return {**asdict(self), "lost": self.lost, "passed": self.passed}


def right(answers: Iterable[Answer]) -> int:
    """Count the correct answers."""
    return sum(answer.outcome == OK for answer in answers)


def figures(results: Sequence[Result]) -> Table:
    made = Table("scenario", "sent", "ok", "lost", "failed with", "twice", "loads", "heals")
    made.add_column("p50 s")
    made.add_column("p99 s")
    for result in results:
        failed = "\n".join(f"{number} {outcome}" for outcome, number in result.failed.items())
        made.add_row(
            result.scenario,
            *map(str, (result.sent, result.ok, result.lost)),
            failed,
            *map(str, (result.twice, result.loads, result.heals)),
            *(f"{took:.3f}" for took in (result.p50, result.p99)),
        )
    return made


def verdicts(results: Sequence[Result]) -> Table:
    made = Table("scenario", "figure", "required", "measured", "")
    for result in results:
        for check in result.checks:
            verdict = "pass" if check.passed else "FAIL"
            made.add_row(result.scenario, check.what, check.wanted, check.measured, verdict)
    return made
