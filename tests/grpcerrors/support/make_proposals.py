"""The conformance data of docs/proposals/open-inference-protocol.md, a part of vectors.json.

After a change: `python -m tests.grpcerrors.support.make_proposals`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.grpcerrors.support.make_vectors import PATH as VECTORS

PROPOSALS = Path(__file__).parents[3] / "docs/proposals"
PATH = PROPOSALS / "open-inference-errors.json"

REASONS = ("MODEL_NOT_LOADED", "MODEL_LOADING", "MODEL_MISMATCH")
# Longer details test how values are cut, which the protocol leaves to the server.
LONGEST = 600


def errors() -> dict[str, Any]:
    """Return the errors of the proposal, in the order of vectors.json."""
    rows = json.loads(VECTORS.read_text())["build"]
    return {
        "domain": "grpcerrors",
        "errors": [
            {
                "name": row["name"],
                "reason": row["condition"],
                "code": row["code"],
                "message": row["message"],
                "metadata": {name: value for name, value in row["fields"].items() if value}
                | ({"started": "true"} if row["started"] else {}),
                "retry_delay_seconds": row["retry_after"],
                "details_hex": row["details_hex"],
                "trailers": row["trailers"],
            }
            for row in rows
            if row["condition"] in REASONS and len(row["details_hex"]) <= LONGEST
        ],
    }


def text() -> str:
    """Return the file's content."""
    return json.dumps(errors(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(text())
