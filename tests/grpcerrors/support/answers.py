"""Answers of real backends, a place in public code a row, and how they are judged.

The words were first made on answers.csv. more_answers.csv holds backends and serving systems that
are not in it: the words were tuned on one half of it, TUNED, and not on the other, HELD_OUT. The
halves differ in wording, not in systems: a system's fixed sentences stand side by side in its code.
"""

from __future__ import annotations

import csv
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import grpc
import grpc.aio
from grpc import StatusCode

from grpcerrors import MODEL_NOT_LOADED, Verdict, classify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


class Answer(NamedTuple):
    """What one backend answers in one state of its process."""

    means: str
    code: StatusCode
    system: str
    message: str


def _load(name: str) -> list[Answer]:
    with Path(__file__).with_name(name).open(newline="") as lines:
        return [
            Answer(row["means"], StatusCode[row["code"]], row["system"], row["message"])
            for row in csv.DictReader(lines)
        ]


def _half(answers: Iterable[Answer], number: int) -> list[Answer]:
    """Return the half of that number; answers of the same words are in the same half."""
    return [each for each in answers if zlib.crc32(each.message.encode()) % 2 == number]


ANSWERS = _load("answers.csv")
MORE_ANSWERS = _load("more_answers.csv")
TUNED = _half(MORE_ANSWERS, 0)
HELD_OUT = _half(MORE_ANSWERS, 1)


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


def judged(answers: Sequence[Answer]) -> Iterator[tuple[Answer, Verdict]]:
    """Judge each answer as an aio client meets it."""
    for answer in answers:
        metadata = grpc.aio.Metadata()
        err = grpc.aio.AioRpcError(answer.code, metadata, metadata, details=answer.message)
        yield answer, classify(err)


def score(answers: Sequence[Answer], accept: Callable[[Verdict], bool]) -> Score:
    """Score the verdicts "not loaded" that `accept` takes."""
    return _score(
        (answer, verdict.condition is MODEL_NOT_LOADED and accept(verdict))
        for answer, verdict in judged(answers)
    )


def score_go(answers: Sequence[Answer]) -> Score:
    """Score what LocalAI's Go library says, in pkg/grpc/grpcerrors."""
    return _score(
        (
            answer,
            answer.code is StatusCode.FAILED_PRECONDITION
            or "model not loaded" in answer.message.lower(),
        )
        for answer in answers
    )


def _score(verdicts: Iterator[tuple[Answer, bool]]) -> Score:
    hits = false_hits = relevant = 0
    for answer, hit in verdicts:
        right = answer.means == "not loaded"
        hits += hit and right
        false_hits += hit and not right
        relevant += right
    return Score(hits, false_hits, relevant)
