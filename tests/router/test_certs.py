"""The certificates that `grpcerrors-router certs` makes."""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import TYPE_CHECKING, Any

import pytest

from grpcerrors_protocol.tls import ClientTls, ServerTls
from grpcerrors_router.cli import main

if TYPE_CHECKING:
    from pathlib import Path

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "new" / "certs"


def certs(folder: Path, *words: str) -> int:
    return main(["certs", "--dir", str(folder), *words])


async def connects(folder: Path, host: str) -> bool:
    """Connect as `me` to a server that is the `router`, as strictly as Python can."""
    trust = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    trust.verify_flags |= ssl.VERIFY_X509_STRICT
    trust.load_cert_chain(folder / "me.pem", folder / "me.key")
    tls = ServerTls(folder / "router.pem", folder / "router.key", folder / "ca.pem", warn=fail)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0,
                                        ssl=tls.context())  # fmt: skip
    async with server:
        port = server.sockets[0].getsockname()[1]
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=trust, server_hostname=host
            )
            await reader.read()
        except ssl.SSLError:
            return False
        writer.close()
    return True


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fail(text: str) -> None:
    pytest.fail(text)


async def test_servers_and_clients_of_a_fleet_trust_each_other(
    folder: Path, capsys: Capture
) -> None:
    assert certs(folder, "router=127.0.0.1,router.lan,::1", "me") == 0
    said = capsys.readouterr().out
    for line in ("ca.pem: trust", "ca.key: keep this key here", "router.pem, router.key: a server"):
        assert line in said
    for host in ("127.0.0.1", "router.lan", "::1"):
        assert await connects(folder, host)
    assert not await connects(folder, "other.lan")
    ClientTls(folder / "ca.pem", folder / "me.pem", folder / "me.key", warn=fail)
    assert set(contents(folder)) == {
        f"{name}.{end}" for name in ("ca", "router", "me") for end in ("pem", "key")
    }
    assert (folder / "router.key").stat().st_mode & 0o777 == 0o600


async def test_more_names_and_renewals_have_the_same_authority(
    folder: Path, capsys: Capture
) -> None:
    assert certs(folder, "router=127.0.0.1", "me") == 0
    before = contents(folder)
    assert certs(folder, "router=127.0.0.2", "gpu-1=10.0.0.2", "--days", "7") == 0
    after = contents(folder)
    assert {name for name, content in before.items() if after[name] != content} == {
        "router.pem",
        "router.key",
    }
    assert "gpu-1.pem" in after
    assert await connects(folder, "127.0.0.2")
    assert not await connects(folder, "127.0.0.1")
    assert "for 7 days" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", "ca", "ca=10.0.0.1", "a=", "a=b,,c", "a=http://b", ".x", "a b"]
)
def test_other_names_are_refused(folder: Path, capsys: Capture, name: str) -> None:
    assert certs(folder, "good", name) == 2
    assert "is not NAME or NAME=HOST" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize("broken", ["ca.pem", "ca.key"])
def test_an_authority_that_cannot_be_read_is_kept(
    folder: Path, capsys: Capture, broken: str
) -> None:
    certs(folder, "me")
    (folder / broken).write_text("nonsense")
    assert certs(folder, "me") == 2
    assert "are no authority" in capsys.readouterr().err
    assert (folder / broken).read_text() == "nonsense"


def test_the_authority_of_somebody_else_is_told(folder: Path, capsys: Capture) -> None:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    certs(folder, "me")
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "ca.key").write_bytes(key)
    assert certs(folder, "me") == 2
    assert "is not a key that this command has made" in capsys.readouterr().err


@pytest.mark.parametrize(("missing", "code"), [("cryptography", 2), ("something_else", None)])
def test_the_extra_that_it_needs_is_named(
    folder: Path, capsys: Capture, monkeypatch: Any, missing: str, code: int | None
) -> None:
    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "grpcerrors_router.security.certificates":
                raise ModuleNotFoundError(name=missing)

    monkeypatch.delitem(sys.modules, "grpcerrors_router.security.certificates", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    if code is None:
        with pytest.raises(ModuleNotFoundError):
            certs(folder, "me")
    else:
        assert certs(folder, "me") == code
        assert "pip install 'grpcerrors-router[certs]'" in capsys.readouterr().err
