"""Answers of real backends (answers.csv, a place in public code a row), and how they are judged."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import grpc
import grpc.aio
from grpc import StatusCode

from grpcerrors import MODEL_NOT_LOADED, Verdict, classify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FILE = Path(__file__).with_name("answers.csv")


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


def score_go() -> Score:
    """Score what LocalAI's Go library says, in pkg/grpc/grpcerrors."""
    return _score(
        (
            answer,
            answer.code is StatusCode.FAILED_PRECONDITION
            or "model not loaded" in answer.message.lower(),
        )
        for answer in ANSWERS
    )


def _score(hits: Iterator[tuple[Answer, bool]]) -> Score:
    taken = [answer.means == "not loaded" for answer, hit in hits if hit]
    relevant = sum(answer.means == "not loaded" for answer in ANSWERS)
    return Score(sum(taken), len(taken) - sum(taken), relevant)
