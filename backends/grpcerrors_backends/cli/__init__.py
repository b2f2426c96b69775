"""The command ``grpcerrors-backend``."""

from __future__ import annotations


def main() -> int:
    """Run the command line; return its exit code: 2 after an error, which is on stderr."""
    try:
        from grpcerrors_backends.cli.app import run

        return run()
    except KeyboardInterrupt:  # also during the imports
        return 130
