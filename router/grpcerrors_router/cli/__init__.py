"""The command `grpcerrors-router`: serve, look, and operate."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 2 after an error on stderr that says what to do."""
    # The errors of this program say all; gRPC's own lines would only hide them.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from grpcerrors_router.cli.app import run

        return run(arguments)
    except KeyboardInterrupt:  # also during the imports
        return 130
