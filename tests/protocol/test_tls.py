"""TLS that follows its files, on real servers."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grpcerrors_protocol.tls import ClientTls, ServerTls, TlsError, TlsFiles, hint
from tests.certificates import Authority, Identity, replace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

CA = Authority.create()
OTHER = Authority.create("another CA")
HOST = "127.0.0.1"
PATIENCE = 60


def echo(request: bytes, context: Any) -> bytes:
    return request


async def chat(requests: Any, context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


HANDLERS = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
}


@asynccontextmanager
async def aio_server(tls: ServerTls) -> AsyncIterator[str]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", HANDLERS),))
    port = server.add_secure_port(f"{HOST}:0", tls.credentials())
    await server.start()
    yield f"{HOST}:{port}"
    await server.stop(None)


@contextmanager
def sync_server(tls: ServerTls | None) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    handlers = {"Echo": HANDLERS["Echo"]}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", handlers),))
    address = f"{HOST}:0"
    port = (
        server.add_secure_port(address, tls.credentials())
        if tls
        else server.add_insecure_port(address)
    )
    server.start()
    yield f"{HOST}:{port}"
    server.stop(None)


def ask(address: str, tls: ClientTls | None) -> str:
    """Make one call on a new connection; return the details of its error, "" for none."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = (
        grpc.secure_channel(address, tls.credentials(), options)
        if tls
        else grpc.insecure_channel(address, options)
    )
    with channel:
        answer = channel.unary_unary("/a.B/Echo").future(b"x", timeout=PATIENCE)
        assert answer.code() in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
        return str(answer.details() or "")


def serial(address: str, ca: bytes) -> int:
    """Return the serial number of the certificate that a server shows."""
    context = ssl.create_default_context(cadata=ca.decode())
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as plain:
        context.set_alpn_protocols(["h2"])
        with context.wrap_socket(plain, server_hostname=host) as secure:
            return int(str((secure.getpeercert() or {})["serialNumber"]), 16)


class World:
    """A folder with certificates, and what was warned of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        self.ca = CA.write(folder / "ca.pem")
        self.cert, self.key = CA.issue(HOST).write(folder)

    def renew(self, identity: Identity | None = None) -> None:
        (identity or CA.issue(HOST)).write(self.folder)

    def server(self, client_ca: Path | None = None) -> ServerTls:
        return ServerTls(self.cert, self.key, client_ca, warn=self.warnings.append)

    def client(self, authority: Authority | None = None, *, name: str = "") -> ClientTls:
        pair = (authority or CA).issue(name=name).write(self.folder, name) if name else (None, None)
        return ClientTls(self.ca, *pair, warn=self.warnings.append)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_new_certificates_are_used_and_old_connections_live_on(world: World) -> None:
    async with aio_server(world.server()) as address:
        before = await asyncio.to_thread(serial, address, CA.pem)
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(
            address, world.client().credentials(), options
        ) as channel:
            call = channel.stream_stream("/a.B/Chat")()
            await call.write(b"1")
            assert await call.read() == b"1"
            world.renew()
            assert await asyncio.to_thread(serial, address, CA.pem) != before
            assert await asyncio.to_thread(ask, address, world.client()) == ""
            await call.write(b"2")
            assert await call.read() == b"2"
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK
    assert world.warnings == []


def test_half_of_a_new_pair_keeps_the_old_one(world: World) -> None:
    new = CA.issue(HOST)
    with sync_server(world.server()) as address:
        before = serial(address, CA.pem)
        replace(world.cert, new.cert)
        assert serial(address, CA.pem) == before
        assert serial(address, CA.pem) == before
        (warning,) = world.warnings
        assert "does not belong to --tls-cert" in warning
        assert "stays in use" in warning
        replace(world.key, new.key)
        assert serial(address, CA.pem) != before
        world.cert.unlink()
        assert ask(address, world.client()) == ""
    assert len(world.warnings) == 2
    assert "No such file" in world.warnings[1]


def test_the_server_asks_for_certificates_of_its_clients_authority(world: World) -> None:
    client_ca = CA.write(world.folder / "clients.pem")
    with sync_server(world.server(client_ca)) as address:
        assert ask(address, world.client(name="me")) == ""
        for refused in (world.client(), world.client(OTHER, name="other")):
            said = ask(address, refused)
            assert "closed the connection; if it asks for a certificate" in hint(said, tls=True)
        OTHER.write(client_ca)
        assert ask(address, world.client(OTHER, name="other")) == ""
        assert ask(address, world.client(name="me")) != ""


def test_a_client_reads_its_files_again(world: World) -> None:
    client = world.client()
    world.renew(OTHER.issue(HOST))
    with sync_server(world.server()) as address:
        said = ask(address, client)
        assert hint(said, tls=True).endswith("not accepted: no authority of --tls-ca signed it")
        Authority.create().write(world.ca)  # of the same name
        client.refresh()
        assert "no authority of --tls-ca" in hint(ask(address, client), tls=True)
        before = client.refresh()
        assert client.refresh() == before
        OTHER.write(world.ca)
        assert client.refresh() != before
        assert ask(address, client) == ""
    replace(world.ca, b"")
    assert client.refresh() == client.refresh()
    assert len(world.warnings) == 1


def test_an_error_of_a_connection_is_explained(world: World) -> None:
    world.renew(CA.issue("elsewhere.example"))
    with sync_server(world.server()) as address:
        assert "not for that name or address" in hint(ask(address, world.client()), tls=True)
        assert "if it serves TLS, give --tls-ca" in hint(ask(address, None), tls=False)
    world.renew(CA.issue(HOST, lifetime=dt.timedelta(hours=-1)))
    with sync_server(world.server()) as address:
        assert "certificate has expired" in hint(ask(address, world.client()), tls=True)
    with sync_server(None) as address:
        assert hint(ask(address, world.client()), tls=True) == "the server does not serve TLS"
    assert hint("Connection refused", tls=True) == ""
    (warning,) = world.warnings
    assert warning.endswith("certificate has expired")


def test_a_certificate_that_expires_while_it_is_used_is_told_once(world: World) -> None:
    world.renew(CA.issue(HOST, lifetime=dt.timedelta(seconds=1)))
    server = world.server()
    with sync_server(server) as address:
        while not world.warnings:
            ask(address, world.client())
        ask(address, world.client())
    (warning,) = world.warnings
    assert f"--tls-cert {world.cert}" in warning


async def test_a_server_of_http_follows_the_files_too(world: World) -> None:
    client_ca = CA.write(world.folder / "clients.pem")
    context = world.server(client_ca).context()

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    async def read(authority: Authority) -> int:
        cert, key = authority.issue(name="me").write(world.folder, "me")
        trust = ssl.create_default_context(cadata=CA.pem.decode())
        trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
        trust.load_cert_chain(cert, key)
        try:
            reader, writer = await asyncio.open_connection(HOST, port, ssl=trust)
            found = writer.get_extra_info("peercert")["serialNumber"]
            text = await reader.read()
            writer.close()
        except OSError:
            return 0
        return int(found, 16) if text else 0

    server = await asyncio.start_server(greet, HOST, 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        first = await read(CA)
        assert first == await read(CA)
        assert await read(OTHER) == 0
        world.renew()
        second = await read(CA)
        assert second not in (0, first)
        OTHER.write(client_ca)
        assert await read(OTHER) == second
        assert await read(CA) == 0


def refusal(world: World, **files: Path | None) -> str:
    given: dict[str, Any] = {"cert": world.cert, "key": world.key, "client_ca": None, **files}
    with pytest.raises(TlsError) as caught:
        TlsFiles(**given).server(world.warnings.append)
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(f"{world.folder}/", "")


def test_errors_name_the_option_and_the_file(world: World) -> None:
    folder = world.folder
    other = CA.issue(HOST).write(folder, "other")
    assert (
        refusal(world, key=other[1])
        == "--tls-key other.key does not belong to --tls-cert server.pem"
    )
    assert refusal(world, cert=folder / "no.pem") == "--tls-cert no.pem: No such file or directory"
    assert refusal(world, key=folder).startswith("--tls-key ")
    assert refusal(world, client_ca=folder / "no.pem").startswith("--tls-client-ca no.pem: No such")
    assert refusal(world, cert=None) == (
        "--tls-key needs --tls-cert: give the certificate and its private key"
    )
    assert refusal(world, key=None).startswith("--tls-cert needs --tls-key")
    assert refusal(world, cert=None, key=None, client_ca=world.ca).startswith(
        "--tls-client-ca needs --tls-cert and --tls-key"
    )
    assert refusal(world, key=world.cert).startswith("--tls-key server.pem has no private key")
    assert refusal(world, cert=world.key).startswith("--tls-cert server.key has no certificate")
    locked = CA.issue(HOST, password=b"secret").write(folder, "locked")
    assert refusal(world, cert=locked[0], key=locked[1]).startswith("--tls-key locked.key is encry")
    damaged = folder / "damaged.pem"
    for kind, option in (("CERTIFICATE", "cert"), ("PRIVATE KEY", "key")):
        damaged.write_text(f"-----BEGIN {kind}-----\nzzzz\n-----END {kind}-----\n")
        assert "damaged" in refusal(world, **{option: damaged})
    assert TlsFiles().server(world.warnings.append) is None


def test_a_key_that_grpc_does_not_support_is_told(world: World) -> None:
    odd = CA.issue(HOST, key=Ed25519PrivateKey.generate()).write(world.folder, "odd")
    assert "does not support; use RSA, P-256" in refusal(world, cert=odd[0], key=odd[1])


@pytest.mark.parametrize("seen", [1, 2])
def test_files_that_change_while_they_are_read_are_read_later(
    world: World, monkeypatch: pytest.MonkeyPatch, seen: int
) -> None:
    """The pair is replaced after it was read, and before OpenSSL reads it."""
    server = world.server()
    load = ssl.SSLContext.load_cert_chain
    left = [None] * seen

    def slow(context: ssl.SSLContext, *files: Any) -> None:
        if left:
            left.pop()
            world.renew()
        load(context, *files)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", slow)
    world.renew()
    with sync_server(server) as address:
        for _ in range(seen + 1):
            assert ask(address, world.client()) == ""
    assert len(world.warnings) == seen
    assert all("are being written" in warning for warning in world.warnings)
