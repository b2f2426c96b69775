"""How well real answers of real backends are judged, beside LocalAI's Go rule.

`python -m bench.precision` prints the table; tests/grpcerrors/answers.csv holds the answers.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from grpcerrors import Evidence
from tests.grpcerrors.answers import score, score_go


def main() -> None:
    """Print the table."""
    table = Table("rule", "precision", "recall", "right", "wrong", "missed")
    said = {Evidence.DETAILS, Evidence.TEXT}
    for name, result in {
        "details or words": score(lambda verdict: verdict.evidence in said),
        "details, words or code": score(lambda _: True),
        "LocalAI's Go rule": score_go(),
    }.items():
        missed = result.relevant - result.hits
        counts = (str(result.hits), str(result.false_hits), str(missed))
        table.add_row(name, f"{result.precision:.2f}", f"{result.recall:.2f}", *counts)
    Console().print(table)


if __name__ == "__main__":
    main()
