"""How well real answers of real backends are judged, beside LocalAI's Go rule.

`python -m bench.precision` prints the table. The answers are in tests/grpcerrors/answers.csv.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import grpc
import grpc.aio
from grpc import StatusCode
from rich.console import Console
from rich.table import Table

from grpcerrors import MODEL_NOT_LOADED, Evidence, Verdict, classify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FILE = Path(__file__).parent.parent / "tests" / "grpcerrors" / "answers.csv"


class Answer(NamedTuple):
    """What one backend answers in one state of its process."""

    means: str
    code: StatusCode
    system: str
    message: str


def _load() -> list[Answer]:
    with _FILE.open(newline="") as lines:
        return [
            Answer(row["means"], StatusCode[row["code"]], row["system"], row["message"])
            for row in csv.DictReader(lines)
        ]


ANSWERS = _load()


class Score(NamedTuple):
    """How many answers were taken for "not loaded", rightly and wrongly, of how many that are."""

    hits: int
    false_hits: int
    relevant: int

    @property
    def precision(self) -> float:
        """The share of the hits that are right."""
        return self.hits / (self.hits + self.false_hits)

    @property
    def recall(self) -> float:
        """The share of what should be hit that is."""
        return self.hits / self.relevant


def judged() -> Iterator[tuple[Answer, Verdict]]:
    """Judge each answer as an aio client meets it."""
    for answer in ANSWERS:
        metadata = grpc.aio.Metadata()
        err = grpc.aio.AioRpcError(answer.code, metadata, metadata, details=answer.message)
        yield answer, classify(err)


def score(accept: Callable[[Verdict], bool]) -> Score:
    """Score the verdicts "not loaded" that `accept` takes."""
    return _score(
        (answer, verdict.condition is MODEL_NOT_LOADED and accept(verdict))
        for answer, verdict in judged()
    )


def _go(answer: Answer) -> bool:
    """Judge as LocalAI's pkg/grpc/grpcerrors does."""
    return (
        answer.code is StatusCode.FAILED_PRECONDITION
        or "model not loaded" in answer.message.lower()
    )


def _score(hits: Iterator[tuple[Answer, bool]]) -> Score:
    taken = [answer.means == "not loaded" for answer, hit in hits if hit]
    relevant = sum(answer.means == "not loaded" for answer in ANSWERS)
    return Score(sum(taken), len(taken) - sum(taken), relevant)


def main() -> None:
    """Print the table."""
    table = Table("rule", "precision", "recall", "right", "wrong", "missed")
    said = {Evidence.DETAILS, Evidence.TEXT}
    for name, result in {
        "details or words": score(lambda verdict: verdict.evidence in said),
        "details, words or code": score(lambda _: True),
        "LocalAI's Go rule": _score((answer, _go(answer)) for answer in ANSWERS),
    }.items():
        missed = result.relevant - result.hits
        counts = (str(result.hits), str(result.false_hits), str(missed))
        table.add_row(name, f"{result.precision:.2f}", f"{result.recall:.2f}", *counts)
    Console().print(table)


if __name__ == "__main__":
    main()
