"""`make demo` and `make play`: the story, or the same fleet to try things on."""

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
    """Run the demo; exit 0 only if every step did what it says. Logs stay in `.demo`."""
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
        screen.title(f"It did not work: {failure}")
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
    return 0


async def tell(fleet: Fleet, screen: Screen) -> None:
    """Tell the story and name three commands to try. Raises StepFailed."""
    screen.title("A model goes away while its process lives on (LocalAI, pull request 10181)")
    started = time.monotonic()
    await Story(fleet, screen).tell()
    screen.title(f"Every step did what it says, in {time.monotonic() - started:.0f} s. Try:")
    bin_folder = Path(sys.executable).parent
    if bin_folder.is_relative_to(Path.cwd()):
        bin_folder = bin_folder.relative_to(Path.cwd())
    screen.command(
        f"{bin_folder}/grpcerrors-router heals --registry sqlite:///{FOLDER}/router.db",
        "shows the heal log of this demo",
    )
    screen.command(
        f"{bin_folder}/grpcerrors explain --code FAILED_PRECONDITION"
        ' --message "whisper: model not loaded"',
        "explains an error that you have met",
    )
    screen.command("make play", "starts the same fleet and leaves it running until Ctrl-C")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
