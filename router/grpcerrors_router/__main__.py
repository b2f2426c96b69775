"""The command `python -m grpcerrors_router`, the same as `grpcerrors-router`."""

from __future__ import annotations

import sys

from grpcerrors_router.cli import main

if __name__ == "__main__":
    sys.exit(main())
