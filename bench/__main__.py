"""`python -m bench`: every benchmark, one after the other, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = ("bench.precision", "bench.cost", "bench.router")


def main() -> int:
    """Run them all; return 1 when one did not come to its end."""
    codes = [subprocess.run([sys.executable, "-m", name], check=False).returncode
             for name in BENCHMARKS]  # fmt: skip
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
