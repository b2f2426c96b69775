from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import model_not_loaded
from grpcerrors.cli import _inputs
from grpcerrors.cli._connection import Server, Trust
from grpcerrors.cli._frames import is_trailers_only
from tests.certificates import Authority
from tests.grpcerrors.support import backend_server as backend
from tests.grpcerrors.support import shapes
from tests.grpcerrors.support.command import Ran, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Capture = pytest.CaptureFixture[str]


def shows(authority: Authority, host: str) -> grpc.ServerCredentials:
    """Credentials of a server of that name or address."""
    identity = authority.issue(host)
    return grpc.ssl_server_credentials([(identity.key, identity.cert)])


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


@pytest.fixture
def port(authority: Authority) -> Iterator[int]:
    credentials = shows(authority, "127.0.0.1")
    rpcs = {"Predict": backend.fails(model_not_loaded("x"))}
    with backend.serve(rpcs, credentials=credentials) as served:
        yield served


def check(capsys: Capture, port: int, ca: Path | None) -> tuple[int, str]:
    trust = ("--tls-ca", str(ca)) if ca else ()
    ran = run(capsys, "check", f"127.0.0.1:{port}", "--method", "Predict", *trust)
    return ran.exit_code, ran.err


def test_a_backend_over_tls_is_checked(
    capsys: Capture, authority: Authority, port: int, tmp_path: Path
) -> None:
    ca = authority.write(tmp_path / "ca.pem")
    assert check(capsys, port, ca) == (0, "")


@pytest.mark.parametrize(("begun", "seen"), [((), True), ((("begun", "1"),), False)])
async def test_trailers_only_is_seen_over_tls(
    authority: Authority, tmp_path: Path, begun: tuple[tuple[str, str], ...], seen: object
) -> None:
    refuse = backend.fails(model_not_loaded("x"))

    def handler(request: bytes, context: Any) -> Iterator[bytes]:
        if begun:
            context.send_initial_metadata(begun)
        yield from refuse(request, context)

    path = authority.write(tmp_path / "ca.pem")
    trusted = Trust(_inputs.certificates(str(path)))
    credentials = shows(authority, "127.0.0.1")
    with backend.serve({"Predict": handler}, credentials=credentials) as port:
        server = Server(f"127.0.0.1:{port}", tls=trusted, timeout=30)
        assert await is_trailers_only(server, f"/{backend.SERVICE}/Predict", b"") is seen


def test_a_certificate_of_another_authority_is_refused(
    capsys: Capture, port: int, tmp_path: Path
) -> None:
    exit_code, err = check(capsys, port, Authority.create().write(tmp_path / "ca.pem"))
    assert exit_code == 2
    assert "signed by a CA in --tls-ca" in err


def test_a_certificate_for_another_host_is_refused(
    capsys: Capture, authority: Authority, tmp_path: Path
) -> None:
    with backend.serve({}, credentials=shows(authority, "127.0.0.2")) as port:
        exit_code, err = check(capsys, port, authority.write(tmp_path / "ca.pem"))
    assert exit_code == 2
    assert "must be for this host" in err


def test_plain_text_to_a_tls_port_is_told(capsys: Capture, port: int) -> None:
    exit_code, err = check(capsys, port, None)
    assert exit_code == 2
    assert "--tls-ca" in err


def test_tls_to_a_plain_text_port_is_told(
    capsys: Capture, authority: Authority, tmp_path: Path
) -> None:
    with backend.serve({}) as port:
        exit_code, err = check(capsys, port, authority.write(tmp_path / "ca.pem"))
    assert exit_code == 2
    assert "leave the options of TLS out" in err


def test_a_call_over_tls_is_answered(capsys: Capture, authority: Authority, tmp_path: Path) -> None:
    handlers = (shapes.Shapes().handler(), shapes.reflects(shapes.described()))
    ca = str(authority.write(tmp_path / "ca.pem"))
    with shapes.serve(*handlers, credentials=shows(authority, "127.0.0.1")) as port:
        words = ("call", f"127.0.0.1:{port}", f"{shapes.SERVICE}/Chat", "--data", '{"text": "a"}')
        ran = run(capsys, *words, "--tls-ca", ca)
        refused = run(capsys, *words)
    assert ran == (0, '{"text": "A"}\n', "")
    assert (refused.exit_code, refused.out) == (2, "")
    assert "--tls-ca" in refused.err


@contextlib.contextmanager
def asking(authority: Authority, clients: Authority) -> Iterator[int]:
    """Serve only clients with a certificate of another authority; fail without a token."""
    identity = authority.issue("127.0.0.1")
    credentials = grpc.ssl_server_credentials(
        [(identity.key, identity.cert)], clients.pem, require_client_auth=True
    )

    def refuse(request: bytes, context: Any) -> Iterator[bytes]:
        if dict(context.invocation_metadata()).get("authorization") != "Bearer t0ken":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "token")
        yield from backend.fails(model_not_loaded("x"))(request, context)

    with backend.serve({"Predict": refuse}, credentials=credentials) as port:
        yield port


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> dict[str, str]:
    """Options that satisfy such a server, with their files."""
    cert, key = authority.issue(name="me").write(tmp_path, "me")
    token = tmp_path / "token"
    token.write_text("t0ken\n")
    ca = authority.write(tmp_path / "ca.pem")
    ca.write_bytes("Autorit\u00e9 de test\n".encode() + ca.read_bytes())
    named = {"--tls-ca": ca, "--tls-cert": cert, "--tls-key": key, "--token-file": token}
    return {option: str(path) for option, path in named.items()}


def ask(capsys: Capture, port: int, files: dict[str, str]) -> Ran:
    options = [word for pair in files.items() for word in pair]
    return run(capsys, "check", f"127.0.0.1:{port}", "--method", "Predict", *options)


def test_a_server_that_asks_for_certificate_and_token_is_checked(
    capsys: Capture, authority: Authority, files: dict[str, str]
) -> None:
    with asking(authority, authority) as port:
        ran = ask(capsys, port, files)
        assert (ran.exit_code, ran.err) == (0, "")
        del files["--token-file"]
        ran = ask(capsys, port, files)
        assert ran.exit_code == 1
        for option, path in files.items():
            assert f"{option} {path}" in ran.out, "the command that calls again"


def test_a_client_without_the_right_certificate_is_told(
    capsys: Capture, authority: Authority, files: dict[str, str]
) -> None:
    with asking(authority, Authority.create("another CA")) as port:
        assert "give --tls-cert and --tls-key" in ask(capsys, port, files).err
        del files["--tls-cert"], files["--tls-key"]
        assert "give --tls-cert and --tls-key" in ask(capsys, port, files).err


def test_the_authorities_of_the_system_are_trusted_on_demand(capsys: Capture, port: int) -> None:
    ran = run(capsys, "health", f"127.0.0.1:{port}", "--tls")
    assert ran.exit_code == 2
    assert "signed by a CA in --tls-ca" in ran.err


def test_a_key_of_another_certificate_is_told(
    capsys: Capture, authority: Authority, files: dict[str, str], tmp_path: Path
) -> None:
    _, files["--tls-key"] = map(str, authority.issue().write(tmp_path, "other"))
    ran = ask(capsys, 1, files)
    assert ran.exit_code == 2
    assert "other.key does not belong to --tls-cert" in ran.err


def test_the_command_to_call_again_has_the_options() -> None:
    token = _inputs.Token("t.txt", "secret")
    server = Server("a:1", (("k", "v"),), Trust(), token)
    expected = "grpcerrors call a:1 s/m --metadata k=... --token-file t.txt --tls"
    assert server.command("call", "s/m") == expected
