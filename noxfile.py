"""Tests of the built wheels, outside the checkout."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
ROOMS = ("grpcerrors", "protocol", "backends", "router")
PACKAGES = {"grpcerrors": "grpcerrors"} | {room: f"grpcerrors_{room}" for room in ROOMS[1:]}
PINNED = ROOT / "requirements/dev.txt"
# The oldest version that the generated code accepts.
LOWEST_PROTOBUF = "protobuf==5.29.0"
# How tests/pages.py reads a page.
FENCES = ("tools/__init__.py", "tools/site/__init__.py", "tools/site/fences.py")
SHOW_VERSIONS = """
from importlib.metadata import version
print(*(f"{name} {version(name)}" for name in ("grpcio", "grpcio-status", "protobuf")), sep=", ")
"""

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = False  # the summary lists them as skipped
nox.options.download_python = "never"


@functools.cache
def _outside() -> Path:
    """Return a temporary directory outside the checkout, which is removed when nox ends."""
    folder = Path(tempfile.mkdtemp(prefix="grpcerrors-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


nox.options.envdir = str(_outside() / "environments")


def _build(out: Path, *kinds: str) -> None:
    """Build all distributions into *out*: each an sdist, and from it a wheel, or the given kinds.

    Raises RuntimeError if a wheel contains anything but its one package.
    """
    for room in ROOMS:
        source = ROOT if room == "grpcerrors" else ROOT / room
        command = ["uv", "build", "--quiet", *kinds, "--out-dir", str(out)]
        command += ["--build-constraint", str(ROOT / "requirements/build.txt"), str(source)]
        subprocess.run(command, check=True)
        (wheel,) = out.glob(f"{PACKAGES[room]}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            tops = {name.split("/")[0] for name in archive.namelist()}
        tops = {top for top in tops if not top.endswith(".dist-info")}
        if tops != {PACKAGES[room]}:
            message = f"{wheel.name} contains {sorted(tops)}; it must contain only {PACKAGES[room]}"
            raise RuntimeError(message)


@functools.cache
def _wheels() -> dict[str, Path]:
    """Build all distributions; return the wheel of each."""
    out = _outside() / "dist"
    _build(out)
    return {room: next(out.glob(f"{PACKAGES[room]}-*.whl")) for room in ROOMS}


def _floors() -> list[str]:
    """Return every dependency of the library and its extras, pinned to its lowest version."""
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    declared = [*project["dependencies"], *(need for extra in extras for need in extra)]
    return [LOWEST_PROTOBUF, *(need.replace(">=", "==") for need in declared)]


def _install_wheel(session: nox.Session, constraints: Path | None) -> None:
    session.install(
        *(f"{_wheels()['grpcerrors']}[cli,testing]", str(_wheels()["protocol"])),
        *("--group", "test"),
        *(("--constraint", str(constraints)) if constraints else ()),
    )


def _test_wheel(session: nox.Session, *options: str) -> None:
    """Run tests against the installed wheel, without the checkout on the path."""
    home = _outside() / session.name.replace("'", "")
    tests = ("tests/__init__.py", "tests/conftest.py", "tests/certificates.py")
    for path in ("pyproject.toml", "CONTRACT.md", *tests):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, home / path)
    for path in ("docs", "languages", "tests/grpcerrors"):
        shutil.copytree(ROOT / path, home / path)
    session.chdir(home)
    session.run("python", "-c", SHOW_VERSIONS)
    pytest = ("python", "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", *session.posargs)
    session.run(*pytest, *options)


@nox.session(python=PYTHONS)
@nox.parametrize("grpc", ["lowest", "newest"])
def matrix(session: nox.Session, grpc: str) -> None:
    """Test the library's wheel on one Python, with the oldest or the newest gRPC."""
    constraints = None
    if grpc == "lowest":
        constraints = Path(session.create_tmp()).resolve() / "constraints.txt"
        constraints.write_text("\n".join(_floors()))
    # Slow tests put servers under load; running them on one Python is enough.
    _install_wheel(session, constraints)
    _test_wheel(session, "-m", "not slow and not soak", "tests/grpcerrors")


@nox.session
def wheel(session: nox.Session) -> None:
    """Test the library's wheel on this Python, with the pinned versions and full coverage."""
    coverage = ("--cov=grpcerrors", "--cov-report=term", "--cov-fail-under=100")
    _install_wheel(session, PINNED)
    _test_wheel(session, "-m", "not soak", *coverage, "tests/grpcerrors")


@nox.session
def connect_python(session: nox.Session) -> None:
    """Test with connectrpc under its old name, which excludes the new one."""
    _install_wheel(session, PINNED)
    session.run("uv", "pip", "uninstall", "connectrpc", external=True)
    session.install("connect-python==0.9.0")
    files = ("test_client_libraries.py", "test_detect.py")
    _test_wheel(session, *(f"tests/grpcerrors/{name}" for name in files))


@nox.session
def wheels(session: nox.Session) -> None:
    """Build all distributions into dist/, and check what an index would show of them."""
    session.install("twine", "--constraint", str(PINNED))
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    _build(ROOT / "dist")
    session.run(
        "twine", "check", "--strict", *map(str, sorted((ROOT / "dist").glob("grpcerrors*")))
    )


@nox.session
def distributions(session: nox.Session) -> None:
    """Install all four wheels, and follow their pages; run each program without installing it."""
    built = {room: str(wheel) for room, wheel in _wheels().items()}
    out = _outside() / "dist"
    session.install(
        *(f"{built['grpcerrors']}[cli]", built["protocol"], built["backends"], built["router"]),
        *("pytest", "pytest-asyncio", "pytest-timeout", "hypothesis", "twine"),
        *("--constraint", str(PINNED)),
    )
    session.run("twine", "check", "--strict", *map(str, sorted(out.glob("grpcerrors*"))))
    home = _outside() / "distributions"
    for path in (
        "pyproject.toml",
        "tests/__init__.py",
        "tests/conftest.py",
        "tests/pages.py",
        *FENCES,
    ):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, home / path)
    for room in ROOMS:
        (home / room).mkdir(exist_ok=True)
        shutil.copy(ROOT / room / "README.md", home / room)
    shutil.copytree(ROOT / "tests/wheels", home / "tests/wheels")
    session.chdir(home)
    session.run("python", "-m", "pytest", "-q", "tests/wheels", env={"CHECKOUT": str(ROOT)})
    uvx = ("uvx", "--isolated", "--find-links", str(out), "--constraints", str(PINNED), "--from")
    explain = ("grpcerrors", "explain", "--code", "9", "--message", "x: model not loaded")
    session.run(*uvx, f"{built['grpcerrors']}[cli]", *explain, external=True)
    session.run(*uvx, built["backends"], "grpcerrors-backend", "--version", external=True)
    session.run(*uvx, built["router"], "grpcerrors-router", "--version", external=True)
