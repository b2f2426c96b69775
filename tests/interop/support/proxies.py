"""Real proxies in front of one upstream, each with as little configuration as gRPC needs.

They listen on a Unix socket, which no other process can take first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from tests.interop.support.peers import needs

if TYPE_CHECKING:
    from collections.abc import Iterator

Proxy = Callable[[Path], list[str]]  # the command that runs a proxy with a configuration
SECONDS = 60.0  # that only a hang reaches

NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/client_body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen unix:{folder}/socket http2;
    location / {{ grpc_pass grpc://{upstream}; }}
  }}
}}
"""

HAPROXY = """
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
listen errors
  bind unix@{folder}/socket proto h2
  server backend {upstream} proto h2
"""

ENVOY = """
static_resources:
  listeners:
  - address: {{pipe: {{path: {folder}/socket}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network\
.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: errors
          codec_type: HTTP2
          route_config:
            virtual_hosts:
            - name: errors
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: errors}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: errors
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: errors
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}
"""


def nginx(config: Path) -> list[str]:
    return [_program("nginx"), "-p", str(config.parent), "-e", "stderr", "-c", str(config)]


def haproxy(config: Path) -> list[str]:
    return [_program("haproxy"), "-db", "-q", "-f", str(config)]


def envoy(config: Path) -> list[str]:
    quiet = ("--log-level", "error", "--concurrency", "1", "--use-dynamic-base-id")
    return [_program("envoy"), *quiet, "--config-path", str(config)]


PROXIES: dict[Proxy, str] = {nginx: NGINX, haproxy: HAPROXY, envoy: ENVOY}


def _program(name: str) -> str:
    return needs(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin"), name)


@contextmanager
def proxying(proxy: Proxy, upstream: str, folder: Path) -> Iterator[str]:
    """Run a proxy in front of `upstream`; yield the gRPC target of the proxy."""
    host, _, port = upstream.rpartition(":")
    config = folder / f"{proxy.__name__}.yaml"
    values = {"folder": folder, "upstream": upstream, "host": host, "port": port}
    config.write_text(PROXIES[proxy].format_map(values))
    command = proxy(config)
    process = subprocess.Popen(command)
    target = f"unix:{folder}/socket"
    try:
        with grpc.insecure_channel(target) as channel:
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
