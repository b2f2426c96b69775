"""The command `grpcerrors-router`: serve a router, inspect it, and operate it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 2 after an error, which is printed on stderr."""
    # gRPC's own log lines would hide the one error that says what to do.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if arguments is None:
        # Ctrl-C ends the program at once and without a traceback, also during the imports. Commands
        # that have something to clean up change that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from grpcerrors_router.cli.app import run

        return run(arguments)
    except KeyboardInterrupt:  # also during the imports
        return 130
