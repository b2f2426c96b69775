"""`make demo`: exit 0 only if every step did what it says."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from demo.processes import DidNotStart, Fleet
from demo.screen import Screen, StepFailed
from demo.story import Story


def main() -> int:
    """Tell the story in a folder that is gone afterwards; return the exit code."""
    screen = Screen()
    screen.title("A model goes away while its process lives on (LocalAI, pull request 10181)")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="grpcerrors-demo-") as name:
        folder = Path(name)
        try:
            with Fleet(folder) as fleet:
                asyncio.run(Story(fleet, screen, folder).tell())
        except (StepFailed, DidNotStart) as failure:
            screen.title(f"It did not work: {failure}")
            return 1
    screen.title(f"Every step did what it says, in {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
