"""The command `grpcerrors`. It needs the extra `cli`; the library does not."""

from __future__ import annotations

import os
import sys

_EXTRA = frozenset({"grpc_reflection", "rich", "typer"})


def main() -> None:
    """Run the command; without the extra, print how to install it and exit with 2."""
    # The command reports by itself what gRPC would log.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from grpcerrors.cli._commands import run  # noqa: PLC0415 - it may be missing

        sys.exit(run())
    except KeyboardInterrupt:  # also during the imports
        sys.exit(130)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        print("The command needs more packages: pip install 'grpcerrors[cli]'", file=sys.stderr)  # noqa: T201
        sys.exit(2)
