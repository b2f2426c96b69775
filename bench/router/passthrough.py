"""The minimal asyncio gateway: it forwards calls and returns the answers."""

from __future__ import annotations

import sys
from typing import Any

import grpc
import uvloop


class PassThrough(grpc.GenericRpcHandler):
    def __init__(self, upstream: str) -> None:
        self._channel = grpc.aio.insecure_channel(upstream)

    def service(self, handler_call_details: Any) -> Any:
        forward = self._channel.unary_unary(handler_call_details.method)

        async def handle(request: bytes, _context: Any) -> bytes:
            reply: bytes = await forward(request)
            return reply

        return grpc.unary_unary_rpc_method_handler(handle)


async def main(upstream: str) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((PassThrough(upstream),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"pass-through ready on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
