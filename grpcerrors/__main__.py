"""`python -m grpcerrors` is the command `grpcerrors`."""

from __future__ import annotations

from grpcerrors.cli import main

if __name__ == "__main__":
    main()
