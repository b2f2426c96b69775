"""A TCP relay in front of a node, which can freeze like a stopped process or drop connections."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class Relay:
    """Forwards connections to `address`. While frozen, it accepts them and forwards nothing.

    Its own connections come from the address `source`.
    """

    def __init__(self, address: str, source: str = "127.0.0.1") -> None:
        self._source = (source, 0)
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._running = asyncio.Event()
        self._running.set()
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.lose()

    def freeze(self) -> None:
        self._running.clear()

    def thaw(self) -> None:
        self._running.set()

    async def lose(self) -> None:
        """Close all connections."""
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._running.wait()
            back_reader, back_writer = await asyncio.open_connection(
                self._host, self._port, local_addr=self._source
            )
            pumps = {
                asyncio.ensure_future(self._pump(reader, back_writer)),
                asyncio.ensure_future(self._pump(back_reader, writer)),
            }
            try:
                await asyncio.wait(pumps, return_when="FIRST_COMPLETED")
            finally:
                for pump in pumps:
                    pump.cancel()
                back_writer.close()
        except OSError:
            pass
        finally:
            writer.close()
            self._connections.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._running.wait()
                writer.write(data)
                await writer.drain()
