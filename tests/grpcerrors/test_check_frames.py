"""Whether an error comes trailers-only is seen in the frames of HTTP/2."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from grpcerrors import model_not_loaded
from grpcerrors.cli._connection import Server
from grpcerrors.cli._frames import is_trailers_only
from tests.grpcerrors.support import backend_server as backend

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS, SETTINGS_ACK = b"\0\0\0\4\0\0\0\0\0", b"\0\0\0\4\1\0\0\0\0"
PING = b"\0\0\x08\6\0\0\0\0\0" + b"pingpong"
PONG = b"\0\0\x08\6\1\0\0\0\0" + b"pingpong"
HEADERS, LAST = b"\0\0\0\1\4\0\0\0\1", b"\0\0\0\1\5\0\0\0\1"
RESET, GOAWAY = b"\0\0\4\3\0\0\0\0\1\0\0\0\0", b"\0\0\0\7\0\0\0\0\0"


async def seen(*frames: bytes, expect: bytes = b"", timeout: float = 30) -> bool | None:
    """Return what is seen of a server that sends these frames, and then waits for `expect`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        *first, last = frames
        writer.write(b"".join(first))
        if expect:
            await reader.readuntil(expect)
        writer.write(last)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        server = Server(f"127.0.0.1:{port}", timeout=timeout)
        return await is_trailers_only(server, "/s/m", b"")


async def test_one_frame_is_trailers_only() -> None:
    assert await seen(SETTINGS, LAST) is True
    assert await seen(SETTINGS, HEADERS) is False


async def test_the_peer_is_answered() -> None:
    assert await seen(SETTINGS, LAST, expect=SETTINGS_ACK) is True
    assert await seen(SETTINGS, SETTINGS_ACK, PING, LAST, expect=PONG) is True


@pytest.mark.parametrize("end", [RESET, GOAWAY])
async def test_an_answer_that_ends_otherwise_says_nothing(end: bytes) -> None:
    assert await seen(SETTINGS, end) is None


async def test_a_peer_that_is_silent_is_given_up() -> None:
    assert await seen(SETTINGS, timeout=0.2) is None


async def test_a_peer_that_is_not_there_says_nothing() -> None:
    assert await is_trailers_only(Server("127.0.0.1:1"), "/s/m", b"") is None


LONG = "x" * 5_000


@pytest.mark.parametrize(
    ("metadata", "outcome"),
    [
        ((("k", "v"), ("long", LONG), ("raw-bin", b"\0\xff"), ("n", "x" * 127)), True),
        ((("long", LONG * 4),), None),
    ],
    ids=["long", "too long"],
)
async def test_headers_reach_the_server(
    metadata: tuple[tuple[str, str | bytes], ...], outcome: object
) -> None:
    met: list[dict[str, object]] = []
    refuse = backend.fails(model_not_loaded("x"))

    def handler(request: bytes, context: Any) -> Iterator[bytes]:
        met.append(dict(context.invocation_metadata()))
        yield from refuse(request, context)

    with backend.serve({"Predict": handler}) as port:
        server = Server(f"127.0.0.1:{port}", metadata, timeout=30)
        path = f"/{backend.SERVICE}/Predict"
        assert await is_trailers_only(server, path, b"") is outcome
    for headers in met:
        assert headers.items() >= dict(metadata).items()
    assert bool(met) == bool(outcome)
