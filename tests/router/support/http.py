"""A browser's requests, as bytes: each header can be wrong."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator


@dataclass
class Answer:
    """The answer to a request."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def data(self) -> Any:
        return json.loads(self.body)


@dataclass
class Browser:
    """Sends requests to one address. A header of None is left out."""

    address: str
    tls: ssl.SSLContext | None = None
    cookie: str = ""

    async def get(self, path: str, **headers: str | None) -> Answer:
        return await self.send("GET", path, "", headers)

    async def post(self, path: str, sent: object, **headers: str | None) -> Answer:
        """Send JSON, or a text as it is."""
        scheme = "http" if self.tls is None else "https"
        usual = {"origin": f"{scheme}://{self.address}", "content_type": "application/json"}
        body = sent if isinstance(sent, str) else json.dumps(sent)
        return await self.send("POST", path, body, {**usual, **headers})

    async def send(
        self, method: str, path: str, body: str, headers: dict[str, str | None]
    ) -> Answer:
        async with self._asked(method, path, body, {**headers, "connection": "close"}) as reader:
            answer = await _head(reader)
            rest = await reader.read()
        return Answer(answer.status, answer.headers, rest.decode())

    @asynccontextmanager
    async def events(self, query: str = "") -> AsyncIterator[AsyncIterator[Any]]:
        """Yield the updates of a stream; the iterator ends with the stream."""
        async with self._asked("GET", f"/events?{query}", "", {"connection": "close"}) as reader:
            assert (await _head(reader)).status == 200
            yield _updates(reader)

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, body: str, headers: dict[str, str | None]
    ) -> AsyncIterator[asyncio.StreamReader]:
        host, _, port = self.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=self.tls, limit=2**24)
        sent = {"host": self.address, "cookie": self.cookie or None, **headers}
        if body:
            sent["content-length"] = str(len(body))
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{k.replace('_', '-')}: {v}" for k, v in sent.items() if v is not None]
        writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        try:
            yield reader
        finally:
            writer.close()


async def _head(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = head.strip().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    for line in lines:  # the value of a cookie has capital letters
        if line.lower().startswith("set-cookie: "):
            headers["set-cookie"] = line.split(": ", 1)[1]
    return Answer(int(status.split()[1]), headers, "")


async def _updates(reader: asyncio.StreamReader) -> AsyncIterator[Any]:
    while True:
        try:
            line = await reader.readuntil(b"\n\n")
        except asyncio.IncompleteReadError:
            return
        text = line.decode()
        yield json.loads(text[text.index("data: ") + 6 :].split("\n")[0])
