"""Command line of `make demo` and `make play`."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from pathlib import Path

from demo.fleet import Fleet
from demo.play import play
from demo.processes import DidNotStart, Processes
from demo.screen import Screen, StepFailed
from demo.story import Story

FOLDER = Path(".demo")


def main(arguments: list[str]) -> int:
    """Run the demo; return 0 only if every step succeeds. Logs stay in `.demo`."""
    screen = Screen()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    try:
        with Processes(FOLDER) as processes:
            fleet = Fleet(processes, FOLDER)
            if arguments == ["play"]:
                asyncio.run(play(fleet, screen))
            else:
                asyncio.run(tell(fleet, screen))
    except (StepFailed, DidNotStart) as failure:
        screen.title(f"The demo failed: {failure}")
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
    return 0


async def tell(fleet: Fleet, screen: Screen) -> None:
    """Run every step, then print three commands to try. Raises StepFailed."""
    screen.title("A model is unloaded while its process keeps running (LocalAI pull request 10181)")
    started = time.monotonic()
    await Story(fleet, screen).tell()
    screen.title(f"All steps succeeded in {time.monotonic() - started:.0f} s. Next, try:")
    bin_folder = Path(sys.executable).parent
    if bin_folder.is_relative_to(Path.cwd()):
        bin_folder = bin_folder.relative_to(Path.cwd())
    screen.command(
        f"{bin_folder}/grpcerrors-router heals --registry sqlite:///{FOLDER}/router.db",
        "show the heal log of this demo",
    )
    screen.command(
        f"{bin_folder}/grpcerrors explain --code FAILED_PRECONDITION"
        ' --message "whisper: model not loaded"',
        "explain an error",
    )
    screen.command("make play", "start the same fleet and keep it running until Ctrl-C")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
