"""Gateway, node and commands as processes over mutual TLS, while every certificate changes."""

from __future__ import annotations

import asyncio
import ssl
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Self

import grpc
import pytest

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_protocol.tls import ClientTls
from grpcerrors_router.cli import main
from tests.certificates import Authority
from tests.router.support.processes import Fleet, fleet

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

PATIENCE = 60.0
HOST = "127.0.0.1"
OLD, NEW = Authority.create("old"), Authority.create("new")


def identify(folder: Path, authority: Authority, *names: str) -> list[str]:
    """Write certificates, and return the options of a server that asks for such certificates."""
    for name in names:
        authority.issue(HOST).write(folder, name)
    ca, cert, key = (str(folder / each) for each in ("ca.pem", *_pair(names[0])))
    return ["--tls-cert", cert, "--tls-key", key, "--tls-ca", ca, "--tls-client-ca", ca]


def _pair(name: str) -> tuple[str, str]:
    return f"{name}.pem", f"{name}.key"


class Traffic:
    """Calls, each on a new connection and on an old one."""

    def __init__(self, address: str, folder: Path) -> None:
        self._address = address
        self._files = (folder / "ca.pem", folder / "caller.pem", folder / "caller.key")
        self.answers = 0
        self._stop = False

    def _channel(self) -> grpc.aio.Channel:
        options = [("grpc.use_local_subchannel_pool", 1)]
        credentials = ClientTls(*self._files).credentials()
        return grpc.aio.secure_channel(self._address, credentials, options)

    async def _predict(self, channel: grpc.aio.Channel) -> None:
        request = pb.PredictOptions(Prompt="hi", ModelIdentity="a")
        reply = await BackendStub(channel).Predict(request, timeout=PATIENCE)
        assert reply.message == b"hi"
        self.answers += 1

    async def _run(self) -> None:
        async with self._channel() as kept:
            while not self._stop:
                await self._predict(kept)
                async with self._channel() as new:
                    await self._predict(new)

    async def more(self) -> None:
        goal = self.answers + 10
        async with asyncio.timeout(PATIENCE):
            while self.answers < goal and not self._task.done():
                await asyncio.sleep(0.02)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        await self.more()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await self._task


async def test_no_call_fails_while_all_certificates_and_their_authority_change(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    OLD.write(tmp_path / "ca.pem")
    router_options = identify(tmp_path, OLD, "router", "caller")
    node_options = identify(tmp_path, OLD, "node")
    async with fleet(tmp_path, '[models.a]\nbackend = "echo"\n') as world:
        gateway = await world.gateway(f"{HOST}:0", *router_options)
        await world.node(gateway.address, "n", f"{HOST}:0", *node_options)
        async with Traffic(gateway.address, tmp_path) as traffic:
            # As one changes an authority: trust both, renew every certificate, trust the new one.
            (tmp_path / "ca.pem").write_bytes(OLD.pem + NEW.pem)
            await traffic.more()
            for name in ("caller", "node", "router"):
                NEW.issue(HOST).write(tmp_path, name)
                await traffic.more()
            NEW.write(tmp_path / "ca.pem")
            await traffic.more()
        await _commands(world, gateway.address, gateway.addresses[1], tmp_path, capfd)
        assert await gateway.stop() == 0


async def _commands(
    world: Fleet, address: str, metrics: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Run commands of operators with the new certificates and without; read the metrics."""
    caller = ("--tls-cert", str(folder / "caller.pem"), "--tls-key", str(folder / "caller.key"))
    ca = ("--tls-ca", str(folder / "ca.pem"))
    load = ("load", "a", "--gateway", address)
    for options, code, said in (
        ((*ca, *caller), 0, "loaded a on n"),
        (ca, 2, "if it asks for a certificate of its clients"),
        ((), 2, "if it serves TLS, give --tls-ca"),
        ((*ca, *caller[:2]), 2, "--tls-cert needs --tls-key"),
    ):
        assert await asyncio.to_thread(main, [*load, *options]) == code
        printed = capfd.readouterr()
        assert said in printed.out + printed.err

    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT

    def read(scheme: str) -> bytes:
        with urllib.request.urlopen(f"{scheme}://{metrics}", context=context) as page:
            body: bytes = page.read()
            return body

    for scheme in ("http", "https"):  # in plain text, and without a certificate
        with pytest.raises((urllib.error.URLError, ConnectionError, ssl.SSLError)):
            await asyncio.to_thread(read, scheme)
    context.load_cert_chain(folder / "caller.pem", folder / "caller.key")
    assert b"router_registry_up" in await asyncio.to_thread(read, "https")
    for log in (folder / "0-grpcerrors_router.log", folder / "1-grpcerrors_backends.log"):
        assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--listen", "0.0.0.0:0"), "--listen 0.0.0.0:0: other machines can reach this address"),
        (("--metrics", "0.0.0.0:0"), "--metrics 0.0.0.0:0: other machines can reach this address"),
        (
            ("--metrics", "0.0.0.0:0", "--tokens", "tokens.toml"),  # it asks for no token
            "--metrics 0.0.0.0:0: other machines can reach this address",
        ),
        (("--tls-cert", "no.pem"), "--tls-cert needs --tls-key"),
        (("--tls-cert", "no.pem", "--tls-key", "no.key"), "--tls-cert no.pem: No such file"),
        (("--tls-ca", "no.pem"), "--tls-ca no.pem: No such file"),
    ],
)
def test_a_router_that_would_be_open_or_lacks_a_file_does_not_start(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    said: str,
) -> None:
    # It would stay configured, for an stderr that ends with this test.
    monkeypatch.setattr("grpcerrors_protocol.logs.configure", lambda *_: None)
    models = tmp_path / "models.toml"
    models.write_text('[models.a]\nbackend = "echo"\n')
    files = ("--models", str(models), "--registry", f"sqlite:///{tmp_path}/router.db")
    assert main(["serve", *files, "--listen", f"{HOST}:0", *options]) == 2
    assert said in capfd.readouterr().err
