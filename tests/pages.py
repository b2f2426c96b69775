"""Pages with files to save and commands to run, followed as a reader would.

The code blocks of a page are followed in order (tools/site/fences.py says how one is written):

- A block with the name of a file is saved; `models.toml` of one block replaces that of another.
- An `sh` block is run in one shell for the whole page, and must succeed; of a line that begins with
  `!`, the command must fail. A line that ends in `&` starts a server, which is waited for.
- A `python` block without a name is run.
- A `text` block is what the block before it has printed: these lines, with others in between. `…`
  stands for any characters.

Each port is replaced by a free one.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tools.site.fences import Fence, split

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[1]
PATIENCE = 300
GATEWAY = "127.0.0.1:50050"
"""Where pages have the gateway: the programs' default."""

_ADDRESS = re.compile(r"127\.0\.0\.1:[1-9]\d*")
_MARK = re.compile(r"^@@(\d+)$", re.MULTILINE)


def fences(page: str) -> list[Fence]:
    """Return the code blocks of a page."""
    return [part for part in split(page) if isinstance(part, Fence)]


def free_port() -> str:
    """Return a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def follow(
    pages: Sequence[str],
    folder: Path,
    replace: Mapping[str, str] | None = None,
    **environment: str,
) -> str:
    """Follow the texts of pages in *folder*, as one page; return what was printed.

    *replace* has texts to replace before, such as a command that the tests run in another way.
    Raises AssertionError, with all that was printed, if a page does not do what it says.
    """
    script = _Script(folder)
    for page in pages:
        text = page
        for old, new in (replace or {}).items():
            assert old in page, f"the page does not contain {old!r}"
            text = text.replace(old, new)
        for fence in fences(text):
            if not fence.reason:
                script.add(fence)
    if GATEWAY in script.addresses:
        environment.setdefault("ROUTER_GATEWAY", script.addresses[GATEWAY])
    code, output = _run("\n".join(script.lines), folder, environment)
    assert code == 0, f"exit code {code}\n{output}"
    marks = _MARK.split(output)
    printed = dict(zip(map(int, marks[1::2]), marks[2::2], strict=True))
    for number, expected in script.expected.items():
        _compare(printed[number], expected)
    return output


@dataclass
class _Script:
    """The pages as a shell script."""

    folder: Path
    lines: list[str] = field(default_factory=list)
    expected: dict[int, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    blocks: int = 0
    joined: int = 0

    def __post_init__(self) -> None:
        (self.folder / ".blocks").mkdir()
        if (ROOT / "examples").is_dir():
            (self.folder / "examples").symlink_to(ROOT / "examples")

    def add(self, fence: Fence) -> None:
        text = _ADDRESS.sub(self._free, fence.text)
        if fence.name and not text:
            return  # a file of the repository
        if fence.language == "text" and not fence.name:
            assert self.blocks, "nothing was run that could have printed this"
            assert self.blocks not in self.expected, "two outputs of one block"
            self.expected[self.blocks] = text
            return
        self.blocks += 1
        saved = f".blocks/{self.blocks}"
        (self.folder / saved).write_text(text)
        if fence.name:
            self.files[fence.name] = text
            self.lines.append(f"cp {saved} {fence.name}")
            return
        self.lines.append(f"echo; echo @@{self.blocks}")
        if fence.language == "python":
            self.lines.append(f"python {saved}")
        else:
            assert fence.language == "sh", f"nothing runs this block:\n{text}"
            for line in text.replace("\\\n", " ").splitlines():
                self.lines += self._commands(line)

    def _free(self, address: re.Match[str]) -> str:
        return self.addresses.setdefault(address[0], f"127.0.0.1:{free_port()}")

    def _commands(self, line: str) -> Iterator[str]:
        if line.startswith("! "):
            yield f"if {line[2:]}"
            yield "then echo 'the page says that this command fails'; exit 1; fi"
            return
        yield line
        if not re.search(r"&( *#.*)?$", line):
            return
        if "--router" in line:
            self.joined += 1
            ready = f'[ "$(grep -c joined output.txt)" -ge {self.joined} ]'
        else:
            ready = f"(exec 3<>/dev/tcp/{self._listens(line)}) 2>/dev/null"
        yield f"until {ready}; do kill -0 $! || exit 1; sleep 0.1; done"

    def _listens(self, line: str) -> str:
        """Return the address of the server that a command starts, with a slash before the port."""
        option = re.search(r"--listen (\S+)", line)
        found = _ADDRESS.search(option[1] if option else line)
        for program in re.findall(r"[\w/]+\.py", line):
            found = found or _ADDRESS.search(self.files.get(program, ""))
        assert found, f"it is not clear where this listens: {line}"
        return found[0].replace(":", "/")


def _compare(printed: str, expected: str) -> None:
    """Check that *printed* has the lines of *expected*, in order."""
    lines = iter(printed.splitlines())
    for line in filter(None, map(str.rstrip, expected.splitlines())):
        pattern = ".*".join(map(re.escape, line.split("…")))
        found = any(re.fullmatch(pattern, each.rstrip()) for each in lines)
        assert found, f"the page shows:\n{line}\nbut this was printed:\n{printed}"


def _run(commands: str, folder: Path, environment: Mapping[str, str]) -> tuple[int | None, str]:
    """Run shell commands in *folder*; end what they started; return the exit code and output."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    output = folder / "output.txt"
    with output.open("w") as file:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=folder,
            env={**os.environ, "PATH": path, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # one group with the servers, so that all can be ended at once
        )
        try:
            code = shell.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    return code, output.read_text()
