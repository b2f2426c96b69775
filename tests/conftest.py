"""For every room: the Hypothesis profiles, and nothing left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings

if TYPE_CHECKING:
    import psutil

# In CI the same examples each time: a red run is the change's doing. Elsewhere new ones.
_COMMON = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.register_profile("check", _COMMON, max_examples=100)
settings.register_profile("test", _COMMON, max_examples=1_000)
settings.register_profile("full", _COMMON, max_examples=10_000)
# One mutant after another: the same examples each time, and no search for the smallest.
settings.register_profile(
    "mutants",
    _COMMON,
    max_examples=50,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "check"))

# Servers that a test stops tell each client so on standard error, one line each. The programs set
# the variable themselves: tests of what they print start them without it.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

PR_SET_CHILD_SUBREAPER = 36
_STASH = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Give the run one folder for temporary files, and adopt what its processes leave behind."""
    # A run in the background of a shell ignores Ctrl-C, and so would the programs that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        return
    root = tempfile.gettempdir()
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", root)  # tmp_path is pytest's own affair
    folder = tempfile.mkdtemp(prefix="grpcerrors-tests-", dir=root)
    os.chmod(folder, 0o1777)  # noqa: PTH101 - PostgreSQL runs as another user
    os.environ["TMPDIR"] = folder
    tempfile.tempdir = None
    config.stash[_STASH] = folder
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End processes that tests have left, and fail the run for them; remove temporary files."""
    folder = session.config.stash.get(_STASH, None)
    if folder is None:
        return
    left = _leftovers()
    for process in left:
        with contextlib.suppress(Exception):
            sys.stderr.write(f"\nleft behind: {process.pid} {' '.join(process.cmdline())[:200]}\n")
            process.kill()
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    shutil.rmtree(folder, ignore_errors=True)


def _leftovers() -> list[psutil.Process]:
    try:
        import psutil  # noqa: PLC0415 - the library's tests do without
    except ImportError:
        return []
    # Workers and what they stop are given time to end.
    _, left = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=10)
    return [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
