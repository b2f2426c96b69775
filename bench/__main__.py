"""`python -m bench`: run every benchmark, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = ("bench.precision", "bench.cost", "bench.router")


def main() -> int:
    """Run all benchmarks; return 1 if one fails."""
    commands = [[sys.executable, "-m", name] for name in BENCHMARKS]
    codes = [subprocess.run(command, check=False).returncode for command in commands]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
