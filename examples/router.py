"""The router inside a Python program, without a gateway.

Run it with one or more backends that do not register:

    python examples/backend.py 127.0.0.1:50051 &
    python examples/router.py 127.0.0.1:50051
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import grpc

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import ModelSpec, NodeRegistry, SmartRouter


async def main(addresses):
    models = {"loud": ModelSpec("loud", backend="upper")}
    with tempfile.TemporaryDirectory() as folder:
        registry = NodeRegistry(f"sqlite:///{Path(folder) / 'fleet.db'}")
        async with SmartRouter(registry, models) as router:
            for address in addresses:
                await router.registry.add_node(address, "upper")
            stub = BackendStub(router.channel("loud"))  # create it once, and keep it
            for prompt in ("hello", "and again"):
                reply = await stub.Predict(pb.PredictOptions(Prompt=prompt), timeout=30)
                print(reply.message.decode())
                await forget(addresses)  # the next request meets an empty backend
            for heal in await router.registry.heals(10):
                print("healed:", heal.model, "by", heal.evidence)


async def forget(addresses):
    """Free the models of the backends behind the router's back."""
    for address in addresses:
        async with grpc.aio.insecure_channel(address) as channel:
            await BackendStub(channel).Free(pb.HealthMessage())


asyncio.run(main(sys.argv[1:]))
