"""``python -m grpcerrors_backends`` is ``grpcerrors-backend``."""

from __future__ import annotations

from grpcerrors_backends.cli import main

if __name__ == "__main__":
    main()
