"""Real processes, each on its own port, which are stopped at the end."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

_ADDRESS = re.compile(r"\bon (127\.0\.0\.1:\d+)")
_STOP_SECONDS = 20.0


class DidNotStart(RuntimeError):
    """A process ended, or printed no address. The message contains its log."""


class Process:
    """A running process that has printed the addresses on which it listens."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self.pid = self._process.pid
        self.addresses = self._wait()

    def _wait(self) -> list[str]:
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        if addresses := _ADDRESS.findall(ready):
            return addresses
        self.stop()
        raise DidNotStart(f"a process did not start:\n{self._log.read_text().strip()}")

    @property
    def address(self) -> str:
        """The first address on which it listens, as HOST:PORT."""
        return self.addresses[0]

    def stop(self) -> None:
        """Terminate it, and kill it if it takes too long. Does nothing if it has ended."""
        if self._process.returncode is not None:
            return
        self._process.terminate()
        timer = threading.Timer(_STOP_SECONDS, self._process.kill)
        timer.start()
        self._process.communicate()
        timer.cancel()


class Processes:
    """Starts processes and stops them all on exit."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()

    def start(self, name: str, *arguments: str) -> Process:
        """Start `python -m arguments`, with its log in NAME.log in the folder."""
        process = Process(self._folder / f"{name}.log", *arguments)
        self._stack.callback(process.stop)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
