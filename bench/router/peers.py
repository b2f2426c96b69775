"""The targets to measure: the node, and each gateway in front of it, as real processes."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
MODEL = "m"
KEY = (("x-model-id", MODEL),)
RAY_KEY = (("application", "bench"), ("multiplexed_model_id", MODEL))

HAPROXY = """
global
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend gateway
  bind 127.0.0.1:{port} proto h2
  default_backend nodes
backend nodes
  server node {upstream} proto h2
"""

NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr error;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder};
  proxy_temp_path {folder};
  fastcgi_temp_path {folder};
  uwsgi_temp_path {folder};
  scgi_temp_path {folder};
  upstream node {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} http2;
    keepalive_requests 1000000000;
    location / {{ grpc_pass grpc://node; }}
  }}
}}
"""


class AbsentError(Exception):
    """A peer is not installed. The text says how to install it."""


@dataclass(frozen=True)
class Target:
    """Address and metadata of the calls to one target."""

    name: str
    address: str
    metadata: tuple[tuple[str, str], ...] = KEY


@contextlib.contextmanager
def running(*command: str, ready: bool = True) -> Iterator[str]:
    """Run a program during the block; yield the first address in its first line of output."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            line = (process.stdout.readline() if process.stdout and ready else "") or ""
            found = re.findall(r"127\.0\.0\.1:\d+", line)
            if ready and not found:
                raise AbsentError(f"{command[0]} did not start")
            yield found[0] if found else ""
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def node() -> contextlib.AbstractContextManager[str]:
    return running(sys.executable, "-m", "bench.router.node")


@contextlib.contextmanager
def passthrough(upstream: str, _folder: Path) -> Iterator[Target]:
    with running(sys.executable, "-m", "bench.router.passthrough", upstream) as address:
        yield Target("bare asyncio pass-through", address)


@contextlib.contextmanager
def gateway(upstream: str, folder: Path) -> Iterator[Target]:
    """Run our gateway with healing, retries, metrics and an SQLite registry."""
    (folder / "models.toml").write_text(f'[models.{MODEL}]\nbackend = "bench"\n')
    registry = ("--registry", f"sqlite:///{folder}/router.db")
    me = (sys.executable, "-m", "grpcerrors_router")
    with running(
        *(*me, "serve", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", *registry),
        *("--models", str(folder / "models.toml"), "--log-level", "warning"),
    ) as address:
        add = (*me, "add-node", upstream, "--backend", "bench", "--gateway", address)
        subprocess.run(add, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        yield Target("this gateway", address)


@contextlib.contextmanager
def haproxy(upstream: str, folder: Path) -> Iterator[Target]:
    program = _installed("haproxy", "apt-get install haproxy")
    file, port = folder / "haproxy.cfg", _free_port()
    file.write_text(HAPROXY.format(port=port, upstream=upstream))
    with running(program, "-db", "-q", "-f", str(file), ready=False):
        yield Target("HAProxy", f"127.0.0.1:{port}")


@contextlib.contextmanager
def nginx(upstream: str, folder: Path) -> Iterator[Target]:
    program = _installed("nginx", "apt-get install nginx-light")
    file, port = folder / "nginx.conf", _free_port()
    file.write_text(NGINX.format(port=port, upstream=upstream, folder=folder))
    with running(program, "-e", "stderr", "-c", str(file), ready=False):
        yield Target("nginx", f"127.0.0.1:{port}")


@contextlib.contextmanager
def ray_serve(_upstream: str, folder: Path) -> Iterator[Target]:
    """Run Ray Serve, which has nodes of its own, from a temporary virtual environment."""
    python = folder / "ray" / "bin" / "python"
    uv = (sys.executable, "-m", "uv")
    try:
        venv = (*uv, "venv", "-q", "--python", sys.executable, str(folder / "ray"))
        subprocess.run(venv, check=True)
        install = (*uv, "pip", "install", "-q", "--python", str(python), "ray[serve]")
        subprocess.run(install, check=True, timeout=900)
    except (OSError, subprocess.SubprocessError) as error:
        raise AbsentError("uv pip install 'ray[serve]' failed") from error
    app = (str(python), "-m", "bench.router.ray_app", str(_free_port()), str(_free_port()))
    with running(*app) as address:
        yield Target("Ray Serve, multiplexed", address, RAY_KEY)


PEERS: dict[str, Callable[[str, Path], contextlib.AbstractContextManager[Target]]] = {
    "this gateway": gateway,
    "bare asyncio pass-through": passthrough,
    "nginx": nginx,
    "HAProxy": haproxy,
    "Ray Serve, multiplexed": ray_serve,
}


def _installed(program: str, how: str) -> str:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if found is None:
        raise AbsentError(how)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
