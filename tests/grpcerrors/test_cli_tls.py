from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import model_not_loaded
from grpcerrors.cli import _inputs
from grpcerrors.cli._connection import Server
from grpcerrors.cli._frames import is_trailers_only
from tests.certificates import Authority
from tests.grpcerrors.support import backend_server as backend
from tests.grpcerrors.support import shapes
from tests.grpcerrors.support.command import run

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
    trusted = _inputs.authority(str(path))
    credentials = shows(authority, "127.0.0.1")
    with backend.serve({"Predict": handler}, credentials=credentials) as port:
        server = Server(f"127.0.0.1:{port}", authority=trusted, timeout=30)
        assert await is_trailers_only(server, f"/{backend.SERVICE}/Predict", b"") is seen


def test_a_certificate_of_another_authority_is_refused(
    capsys: Capture, port: int, tmp_path: Path
) -> None:
    exit_code, err = check(capsys, port, Authority.create().write(tmp_path / "ca.pem"))
    assert exit_code == 2
    assert "signed by that CA" in err


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
    assert "leave --tls-ca out" in err


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
