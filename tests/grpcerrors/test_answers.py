"""What real backends answer, judged: answers.csv holds one place in public code a row.

The bench (`make bench`) prints the same figures beside those of LocalAI's Go rule.
"""

from __future__ import annotations

from grpcerrors import MODEL_MISMATCH, MODEL_NOT_LOADED, Evidence
from tests.grpcerrors.answers import ANSWERS, judged, score


def test_the_answers_are_there() -> None:
    """The gRPC errors of ten serving systems, of each meaning."""
    assert len(ANSWERS) == 147
    assert {answer.means for answer in ANSWERS} == {"not loaded", "mismatch", "other"}


def test_words_are_precise() -> None:
    """A router acts on them without asking the backend first."""
    said = score(lambda verdict: verdict.evidence in (Evidence.DETAILS, Evidence.TEXT))
    assert said.precision >= 0.90


def test_most_are_recognised() -> None:
    """With the bare code, which a router confirms before it acts."""
    assert score(lambda _: True).recall >= 0.60


def test_no_mismatch_is_taken_for_not_loaded() -> None:
    """And each is recognised as what it is."""
    for answer, verdict in judged():
        if answer.means == "mismatch":
            assert verdict.condition is MODEL_MISMATCH, answer
        else:
            assert verdict.condition in (MODEL_NOT_LOADED, None) or answer.means == "other", answer
