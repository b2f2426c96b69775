"""`python -m bench.precision`: precision and recall on real errors, next to LocalAI's Go rule.

The errors are in tests/grpcerrors/support: answers.csv has those of the backends whose wording the
rules were written for, more_answers.csv those of other systems.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from grpcerrors import Evidence
from tests.grpcerrors.support.answers import ANSWERS, HELD_OUT, MORE_ANSWERS, score, score_go

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.grpcerrors.support.answers import Answer


def _table(title: str, answers: Sequence[Answer]) -> Table:
    table = Table("rule", "precision", "recall", "hits", "false hits", "misses", title=title)
    said = {Evidence.DETAILS, Evidence.TEXT}
    for name, result in {
        "details or words": score(answers, lambda verdict: verdict.evidence in said),
        "details, words or code": score(answers, lambda _: True),
        "LocalAI's Go rule": score_go(answers),
    }.items():
        missed = result.relevant - result.hits
        counts = (str(result.hits), str(result.false_hits), str(missed))
        table.add_row(name, f"{result.precision:.2f}", f"{result.recall:.2f}", *counts)
    return table


def main() -> None:
    """Print the tables."""
    console = Console()
    for title, answers in {
        "answers.csv": ANSWERS,
        "more_answers.csv": MORE_ANSWERS,
        "more_answers.csv, the half held out from tuning": HELD_OUT,
    }.items():
        console.print(_table(f"{title}: {len(answers)} errors", answers))


if __name__ == "__main__":
    main()
