"""`python -m bench`: every benchmark, one after the other, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = ("bench.precision", "bench.cost", "bench.router")


def main() -> int:
    """Run them all; return 1 when one did not come to its end."""
    commands = [[sys.executable, "-m", name] for name in BENCHMARKS]
    codes = [subprocess.run(command, check=False).returncode for command in commands]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
