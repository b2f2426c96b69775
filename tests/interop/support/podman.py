"""Podman with settings of its own, and the images that the tests of deploy/ build."""

from __future__ import annotations

import functools
import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from tests.interop.support import deployment
from tests.pages import ROOT

BUILD = ROOT / "tests/interop/.build"
STAND_IN = Path(__file__).parent / "stand_in"
IMAGE = "localhost/grpcerrors"
POSTGRES = "localhost/postgres"
MACHINE = "localhost/machine"
# Debian's packages in place of the official images, which only a registry has. systemd is for the
# test of the units.
PACKAGES = "ca-certificates,procps,python3,python3-venv,postgresql,systemd-sysv"
# runc works in hybrid hierarchies of cgroups, and without the right to raise limits.
SETTINGS = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[network]
network_backend = "netavark"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/storage"
runroot = "{folder}/run"
"""
# What pip in a container needs of this machine to reach its package index.
MOUNTS = ("/etc/ssl/certs", "/etc/pip.conf")


def environment() -> dict[str, str]:
    """Return an environment in which podman and podman-compose use these settings."""
    folder = BUILD / "containers"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "containers.conf").write_text(SETTINGS)
    (folder / "storage.conf").write_text(STORAGE.format(folder=folder))
    return {
        **os.environ,
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
    }


def run(*command: str | Path, check: bool = True, cwd: Path = ROOT) -> str:
    """Run a command; return what it printed.

    Raises:
        AssertionError: it failed, and *check* is set.
    """
    done = subprocess.run(
        [str(word) for word in command],
        env=environment(),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=540,
        check=False,
    )
    assert not check or done.returncode == 0, f"{command}:\n{done.stdout}"
    return done.stdout


@functools.cache
def build() -> None:
    """Build the images: the project's as deploy/ says, the others from Debian's packages."""
    built = f"localhost/debian:{hashlib.sha256(PACKAGES.encode()).hexdigest()[:12]}"
    if run("podman", "images", "-q", built) == "":
        archive = BUILD / "debian.tar"
        codename = run("sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME").strip()
        run("mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", codename, archive)
        run("podman", "import", archive, built)
        archive.unlink()
    run("podman", "tag", built, "localhost/debian")
    run("podman", "build", "-t", POSTGRES, STAND_IN)
    wheels, image, *_ = deployment.CONTAINERS
    assert wheels == "make wheels"
    run("nox", "-s", "wheels")
    there = [path for path in MOUNTS if Path(path).exists()]
    mounts = [f"--volume={path}:{path}:ro" for path in there]
    # What the page says, but for the base image and the way to the package index.
    *command, context = shlex.split(image)
    run(*command, "--network=host", "--build-arg=PYTHON=localhost/debian", *mounts, context)


def build_machine() -> None:
    """Build the image of a machine with systemd and the programs, after `build`."""
    run("podman", "build", "-t", MACHINE, "-f", STAND_IN / "machine.Containerfile", STAND_IN)


def usable() -> bool:
    """Return whether containers can run: as root, with what setup.sh installs."""
    programs = ("podman", "podman-compose", "mmdebstrap")
    return os.geteuid() == 0 and all(map(shutil.which, programs))
