"""The cloud_proxy backend with failing upstreams over real HTTP, and its filtering of requests."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import is_model_not_loaded
from grpcerrors_backends.model import BadInput
from grpcerrors_protocol import backend_pb2 as pb

from .support.hosting import PATIENCE
from .support.models import load, loaded, refused

httpx = pytest.importorskip("httpx", reason="pip install 'grpcerrors-backends[cloud-proxy]'")

from grpcerrors_backends.cloud_proxy import passthrough  # noqa: E402 - needs httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "sk-tell-nobody"
CODE = grpc.StatusCode


@contextlib.contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[Any]]]:
    """Run an HTTP server with one answer; yield its address and the requests that it received."""
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append((self.path, self.headers))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 - the library's name

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text(KEY)
    return str(path)


@pytest.fixture(scope="module")
def process(key_file: str) -> Iterator[Any]:
    options = pb.ProxyOptions(upstream_url="http://127.0.0.1:1", api_key_file=key_file)
    secrets = ("--secrets", Path(key_file).parent)
    with loaded("cloud_proxy", Proxy=options, arguments=secrets) as process:
        yield process
        assert KEY not in process.log()


def to(process: Any, key_file: str, url: str, **fields: Any) -> None:
    options = pb.ProxyOptions(upstream_url=url, api_key_file=key_file, **fields)
    load(process, Proxy=options)


def predict(process: Any) -> Any:
    return process.stub.Predict(pb.PredictOptions(Prompt="hi"), timeout=PATIENCE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (302, CODE.INTERNAL, "redirects are not followed"),
        (400, CODE.INVALID_ARGUMENT, "HTTP 400: no such field; your key is ***"),
        (401, CODE.PERMISSION_DENIED, "check the key"),
        (403, CODE.PERMISSION_DENIED, "check the key"),
        (404, CODE.NOT_FOUND, "check upstream_url and upstream_model"),
        (408, CODE.DEADLINE_EXCEEDED, "HTTP 408"),
        (413, CODE.RESOURCE_EXHAUSTED, "HTTP 413"),
        (418, CODE.INTERNAL, "HTTP 418"),
        (422, CODE.INVALID_ARGUMENT, "no such field"),
        (429, CODE.RESOURCE_EXHAUSTED, "try again later"),
        (500, CODE.UNAVAILABLE, "HTTP 500"),
        (503, CODE.UNAVAILABLE, "HTTP 503"),
        (504, CODE.DEADLINE_EXCEEDED, "HTTP 504"),
    ],
)
def test_an_http_error_has_its_grpc_code(
    process: Any, key_file: str, status: int, code: grpc.StatusCode, words: str
) -> None:
    body = b'{"error": {"message": "no such field; your key is %s"}}' % KEY.encode()
    with answering(status, body, Location="http://127.0.0.1:1/") as (url, seen):
        to(process, key_file, url)
        refused(process, code, words, predict, process)
        ((path, headers),) = seen
        assert (path, headers["Authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_what_an_upstream_lacks_is_not_what_this_backend_lacks(
    process: Any, key_file: str, status: int
) -> None:
    with answering(status, b'{"error": {"message": "model not loaded"}}') as (url, _):
        to(process, key_file, url)
        with pytest.raises(grpc.RpcError) as caught:
            predict(process)
        assert not is_model_not_loaded(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"null", b'"x"', b'{"choices": [1]}', b'{"error": {}}']
)
def test_an_answer_that_is_none(process: Any, key_file: str, body: bytes) -> None:
    with answering(200, body) as (url, _):
        to(process, key_file, url)
        refused(process, CODE.INTERNAL, "the upstream", predict, process)


@pytest.mark.slow
def test_silence_is_a_deadline(process: Any, key_file: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        to(process, key_file, url, request_timeout_seconds=1)
        refused(process, CODE.DEADLINE_EXCEEDED, "sent nothing for 1 s", predict, process)


@pytest.mark.slow
def test_nobody_there_is_unavailable(process: Any, key_file: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    to(process, key_file, url)
    refused(process, CODE.UNAVAILABLE, "cannot connect", predict, process)


@pytest.mark.slow
def test_a_connection_that_breaks_is_unavailable(process: Any, key_file: str) -> None:
    with answering(200, b"short", Transfer_Encoding="chunked") as (url, _):
        to(process, key_file, url)
        refused(process, CODE.UNAVAILABLE, "failed", predict, process)


@pytest.mark.slow
def test_forward_adds_no_header_and_passes_bytes_untouched(process: Any, key_file: str) -> None:
    squeezed = b"\x1f\x8b not really gzip"
    with answering(203, squeezed, Content_Encoding="gzip", Keep_Alive="max=5") as (url, seen):
        to(process, key_file, url)
        request = pb.ForwardRequest(
            path="/v1/models?limit=2",
            method="GET",
            headers=[
                pb.ForwardHeader(name=name, value=value)
                for name, value in [
                    ("X-Kept", "café"),
                    ("Authorization", "Bearer mine"),
                    ("Connection", "close, X-Listed"),
                    ("X-Listed", "no"),
                    ("Host", "elsewhere"),
                    ("Content-Length", "77"),
                    ("Transfer-Encoding", "chunked"),
                ]
            ],
        )
        first, *rest = process.stub.Forward(iter([request]), timeout=PATIENCE)
        assert first.status == 203
        assert b"".join(reply.body_chunk for reply in rest) == squeezed
        names = {header.name.lower() for header in first.headers}
        assert "content-encoding" in names
        assert not names & {"keep-alive", "connection"}
        ((path, headers),) = seen
        assert path == "/v1/models?limit=2"
        sent = {name.lower(): value for name, value in headers.items()}
        assert sent == {
            "host": url.removeprefix("http://"),
            "x-kept": "café",
            "authorization": f"Bearer {KEY}",
        }


HOST = httpx.URL("https://api.example.com")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "v1/models",
        "//elsewhere.example/v1",
        "https://elsewhere.example/",
        "@elsewhere.example/",
        "/v1/../admin",
        "/v1/%2e%2e/admin",
        "/v1/..%2fadmin",
        "/v1/..\\admin",
        "/./v1",
        "/v1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "/v1\x00",
        "/v1#part",
        "/vé",
    ],
)
def test_a_path_stays_in_its_host(path: str) -> None:
    with pytest.raises(BadInput, match="absolute path"):
        passthrough.target(HOST, path)


@pytest.mark.parametrize("path", ["/", "/v1/models", "/v1/m?a=b&c=%2F..", "/a..b/c", "/a%20b"])
def test_a_path_is_passed_as_it_is(path: str) -> None:
    url = passthrough.target(HOST, path)
    assert (url.host, url.raw_path) == ("api.example.com", path.encode())


def test_an_endpoint_takes_the_place_of_the_path() -> None:
    endpoint = httpx.URL("https://api.example.com/v1/chat/completions")
    assert passthrough.target(endpoint, "/v1/models") == endpoint


@pytest.mark.parametrize(
    ("name", "value"),
    [("", "x"), ("X Y", "x"), ("X:", "x"), ("X\r\nY", "x"), ("X", "a\r\nY: b"), ("X", "\x00"),
     ("X", "\u2028")],
)  # fmt: skip
def test_a_header_cannot_smuggle(name: str, value: str) -> None:
    request = pb.ForwardRequest(headers=[pb.ForwardHeader(name=name, value=value)])
    with pytest.raises(BadInput, match="one line of Latin-1"):
        passthrough.headers(request, has_key=True)


def test_methods() -> None:
    assert passthrough.method(pb.ForwardRequest()) == "POST"
    assert passthrough.method(pb.ForwardRequest(method="get")) == "GET"
    for method in ("CONNECT", "TRACE", "GET /x"):
        with pytest.raises(BadInput, match="expected one of GET"):
            passthrough.method(pb.ForwardRequest(method=method))
