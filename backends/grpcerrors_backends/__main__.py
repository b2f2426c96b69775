"""``python -m grpcerrors_backends`` does the same as ``grpcerrors-backend``."""

from __future__ import annotations

import sys

from grpcerrors_backends.cli import main

if __name__ == "__main__":
    sys.exit(main())
