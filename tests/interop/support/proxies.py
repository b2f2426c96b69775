"""Real proxies in front of two upstreams, configured as docs/how-to/proxies.md says.

They listen on a Unix socket, which no other process can take first.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from string import Template
from textwrap import indent
from typing import TYPE_CHECKING

import grpc

from tests.interop.support.peers import needs

if TYPE_CHECKING:
    from collections.abc import Iterator

Proxy = Callable[[Path], list[str]]  # the command that runs a proxy with a configuration
SECONDS = 60.0  # that only a hang reaches

_SOON = [(f"grpc.{which}_reconnect_backoff_ms", 100) for which in ("initial", "min", "max")]

PAGE = Path(__file__).parents[3] / "docs/how-to/proxies.md"
_BLOCKS = dict(
    re.findall(
        r"^```\w+ (\S+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
)

# What surrounds the blocks of the page. Counting the attempts lets the tests see them.
_NGINX = """
daemon off;
master_process off;
pid $folder/nginx.pid;
error_log stderr crit;
events { }
http {
  access_log off;
  client_body_temp_path $folder/client_body;
  proxy_temp_path $folder/proxy;
  fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi;
  scgi_temp_path $folder/scgi;
$block
}
"""

_ENVOY = """
static_resources:
  listeners:
  - address: {pipe: {path: $folder/socket}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network\
.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: models
          codec_type: HTTP2
          route_config:
            virtual_hosts:
            - name: models
              domains: ["*"]
              include_request_attempt_count: true
              include_attempt_count_in_response: true
              routes:
$route
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: models
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: models
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: $host1, port_value: $port1}}}
        - endpoint: {address: {socket_address: {address: $host2, port_value: $port2}}}
$cluster
"""


def _tables() -> Iterator[dict[str, dict[str, str]]]:
    """Yield the tables of the page: the cells by the first of their row and that of the column."""
    for table in re.findall(r"(?:^\|.*\n)+", PAGE.read_text(encoding="utf-8"), re.MULTILINE):
        (_, *head), _, *rows = (
            [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
        )
        yield {name: dict(zip(head, cells, strict=True)) for name, *cells in rows}


BY_PROXY, BY_SERVER, BY_ERROR, BY_HANDLER = _tables()


def does(name: str, what: str) -> str:
    """Return what the first table says of a proxy."""
    (cell,) = (cell for head, cell in BY_PROXY[what].items() if head.split()[0].lower() == name)
    return cell


def nginx(config: Path) -> list[str]:
    return [_program("nginx"), "-p", str(config.parent), "-e", "stderr", "-c", str(config)]


def haproxy(config: Path) -> list[str]:
    return [_program("haproxy"), "-db", "-q", "-f", str(config)]


def envoy(config: Path) -> list[str]:
    quiet = ("--log-level", "error", "--concurrency", "1", "--use-dynamic-base-id")
    return [_program("envoy"), *quiet, "--config-path", str(config)]


_UNCHANGED: Mapping[str, str] = {}
PROXIES = {proxy.__name__: proxy for proxy in (envoy, nginx, haproxy)}
_FILES = {
    "envoy": ("route.yaml", "cluster.yaml"),
    "nginx": ("nginx.conf",),
    "haproxy": ("haproxy.cfg",),
}
_ADDRESSES = {"10.0.0.1:50051": "$host1:$port1", "10.0.0.2:50051": "$host2:$port2"}
_FILLED_IN: dict[str, dict[str, str]] = {
    "envoy": {},
    "nginx": {"listen 50050 http2": "listen unix:$folder/socket http2", **_ADDRESSES},
    "haproxy": {"bind :50050": "bind unix@$folder/socket", **_ADDRESSES},
}


def _template(name: str, changes: Mapping[str, str]) -> str:
    """Return a configuration with the blocks of the page, some pieces of them replaced."""
    blocks = [_BLOCKS[file] for file in _FILES[name]]
    for old, new in {**_FILLED_IN[name], **changes}.items():
        assert sum(block.count(old) for block in blocks) == 1, f"{old!r} is not once in {PAGE}"
        blocks = [block.replace(old, new) for block in blocks]
    if name == "envoy":
        route, cluster = indent(blocks[0], " " * 14), indent(blocks[1], " " * 4)
        return Template(_ENVOY).safe_substitute(route=route, cluster=cluster)
    return Template(_NGINX).safe_substitute(block=blocks[0]) if name == "nginx" else blocks[0]


def _program(name: str) -> str:
    return needs(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin"), name)


@contextmanager
def proxying(
    name: str, first: str, second: str = "", changes: Mapping[str, str] = _UNCHANGED
) -> Iterator[str]:
    """Run a proxy in front of one or two upstreams; yield its gRPC target.

    `changes` are pieces of the page and what replaces them.
    """
    (host1, _, port1), (host2, _, port2) = (
        address.rpartition(":") for address in (first, second or first)
    )
    # pytest's folder is too long: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        values = {"folder": folder, "host1": host1, "port1": port1, "host2": host2, "port2": port2}
        config.write_text(Template(_template(name, changes)).substitute(values), encoding="utf-8")
        target = f"unix:{folder}/socket"
        process = subprocess.Popen(PROXIES[name](config))
        try:
            with grpc.insecure_channel(target, options=_SOON) as channel:
                _wait(channel, process)
            yield target
        finally:
            process.terminate()
            try:
                process.wait(SECONDS)
            finally:
                process.kill()


def _wait(channel: grpc.Channel, process: subprocess.Popen[bytes]) -> None:
    ready = grpc.channel_ready_future(channel)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, f"the proxy ended with {process.returncode}"
        try:
            ready.result(timeout=0.1)
        except grpc.FutureTimeoutError:
            continue
        return
    msg = "the proxy does not listen"
    raise AssertionError(msg)
