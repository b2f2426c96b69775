"""Router, node and commands with tokens, as processes: the way that docs/security.md shows."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from tests.router.conftest import HANG
from tests.router.support.cli import SCRIPT
from tests.router.support.processes import fleet
from tests.router.support.rawnode import LOCAL

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

MODELS = """
[models.echo]
backend = "echo"
[models.other]
backend = "echo"
"""

OK, DENIED, UNKNOWN = (
    grpc.StatusCode.OK,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
)


async def command(*arguments: str) -> tuple[int, str]:
    """Run grpcerrors-router; return its exit code and all its output."""
    process = await asyncio.create_subprocess_exec(
        SCRIPT, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


class Tokens:
    """A tokens file and the tokens that were made for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "tokens.toml"
        self.secrets: dict[str, str] = {}

    async def new(self, name: str, *more: str) -> str:
        """Make a token; return its file."""
        out = self.file(name)
        options = ("--tokens", str(self.path), "--name", name, "--out", out)
        code, said = await command("token", "new", *options, *more)
        assert code == 0, said
        self.secrets[name] = (self.folder / f"{name}.token").read_text().strip()
        return out

    def file(self, name: str) -> str:
        return str(self.folder / f"{name}.token")

    def headers(self, name: str, model: str = "echo") -> list[tuple[str, str]]:
        return [("x-model-id", model), ("authorization", f"Bearer {self.secrets[name]}")]

    def leaks(self, more: bytes) -> list[str]:
        """Return the tokens that any other file of the folder has, or `more`."""
        files = [path for path in self.folder.iterdir() if path.suffix != ".token"]
        assert len(files) >= 4
        written = more + b"".join(path.read_bytes() for path in files)
        assert b"refused a call" in written
        assert b"a node refuses the router" not in written
        return [name for name, secret in self.secrets.items() if secret.encode() in written]


async def predict(channel: Any, headers: list[tuple[str, str]]) -> grpc.StatusCode:
    """Call; return the code of the result."""
    request = pb.PredictOptions(Prompt="hi")
    call = BackendStub(channel).Predict(request, metadata=headers, timeout=HANG)
    code: grpc.StatusCode = await call.code()
    return code


async def scrape(address: str) -> bytes:
    reader, writer = await asyncio.open_connection(*address.split(":"))
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    page = await reader.read()
    writer.close()
    return page


async def test_a_fleet_with_tokens(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    await tokens.new("ops", "--role", "operator")
    await tokens.new("shop", "--role", "caller", "--models", "ec*")
    await tokens.new("gpu-1", "--role", "node")
    tokens.secrets["port"] = "what-callers-of-the-node-send"
    port = tmp_path / "port.token"
    port.touch(0o600)
    port.write_text(tokens.secrets["port"])
    async with fleet(tmp_path, MODELS) as made:
        gateway = await made.gateway(
            "127.0.0.1:0", "--tokens", str(tokens.path), "--node-token-file", str(port)
        )
        shared = ("--router-token-file", tokens.file("gpu-1"), "--token-file", str(port))
        node = await made.node(gateway.address, "gpu-1", "127.0.0.1:0", *shared)
        async with (
            grpc.aio.insecure_channel(gateway.address, options=LOCAL) as channel,
            grpc.aio.insecure_channel(node.address, options=LOCAL) as direct,
        ):
            shop = tokens.headers("shop")
            assert await predict(channel, shop) is OK
            assert await predict(channel, tokens.headers("shop", "other")) is DENIED
            assert await predict(channel, tokens.headers("gpu-1")) is DENIED
            assert await predict(channel, shop[:1]) is UNKNOWN
            assert await predict(direct, shop) is UNKNOWN
            await operate(tokens, gateway.address)
            # A file with mistakes changes nothing; one without the token does.
            good = tokens.path.read_text()
            tokens.path.write_text("[tokens.x]\n")
            gateway.process.send_signal(signal.SIGHUP)
            assert await predict(channel, shop) is OK
            tokens.path.write_text(good)
            assert (await command("token", "revoke", "shop", "--tokens", str(tokens.path)))[0] == 0
            async with asyncio.timeout(HANG):
                while (code := await predict(channel, shop)) is OK:
                    await asyncio.sleep(0.05)
            assert code is UNKNOWN
        metrics = await scrape(gateway.addresses[1])
        assert b'reason="UNAUTHENTICATED"' in metrics
        assert b'reason="PERMISSION_DENIED"' in metrics
        assert await node.stop() == 0
        await gateway.stop()
    assert tokens.leaks(metrics) == []


async def operate(tokens: Tokens, address: str) -> None:
    """Unload the model, with the operator's token only."""
    unload = ("unload", "echo", "--gateway", address)
    code, out = await command(*unload, "--token-file", tokens.file("ops"))
    assert (code, out) == (0, "unloaded echo from gpu-1\n")
    code, out = await command(*unload)
    assert code == 2
    assert "--token-file FILE" in out
    code, out = await command(*unload, "--token-file", tokens.file("gpu-1"))
    assert code == 2
    assert "which needs the role operator" in out
