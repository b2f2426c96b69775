"""Traffic: requests at a fixed rate, each with a deadline."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.rpc import error_details_pb2, status_pb2

from bench.faults.report import OK
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

PATIENCE = 15.0  # seconds after its deadline at which a call counts as hanging


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a call: OK, or code and reason, after `seconds`. `sent` is a Unix time."""

    request: str
    model: str
    outcome: str
    seconds: float
    sent: float
    detail: str = ""


class Callers:
    """Calls the server at `address` over several connections."""

    def __init__(self, address: str, connections: int = 1) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        self._channels = [
            grpc.aio.insecure_channel(address, options=options) for _ in range(connections)
        ]
        self.stubs = [BackendStub(channel) for channel in self._channels]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for channel in self._channels:
            await channel.close()

    async def predict(
        self, model: str, request: str, deadline: float = 30.0, prompt: str = ""
    ) -> Answer:
        """Call Predict and check that the reply is "MODEL/PROMPT"."""
        prompt = prompt or request
        message = pb.PredictOptions(Prompt=prompt, ModelIdentity=model, CorrelationId=request)
        stub = self.stubs[hash(request) % len(self.stubs)]

        def right(reply: Any) -> bool:
            return bool(reply.message == f"{model}/{prompt}".encode())

        return await call(stub.Predict, message, model, request, deadline=deadline, right=right)

    async def drive(
        self, rate: float, seconds: float, models: Sequence[str], deadline: float, name: str = "r"
    ) -> list[Answer]:
        """Send `rate` requests per second for `seconds`, to each model in turn."""

        def request(index: int) -> Any:
            return self.predict(models[index % len(models)], f"{name}{index}", deadline)

        return await at_rate(rate, seconds, request)


async def at_rate(rate: float, seconds: float, make: Callable[[int], Any]) -> list[Any]:
    """Start `make(index)` at a fixed rate for `seconds`; return all results."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for index in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, start + index / rate - loop.time()))
            tasks.append(group.create_task(make(index)))
    return [task.result() for task in tasks]


async def call(
    rpc: Any,
    message: Any,
    model: str,
    request: str,
    *,
    deadline: float,
    right: Callable[[Any], bool] = lambda _reply: True,
    metadata: Any = (),
) -> Answer:
    """Call `rpc` once and return the outcome, which may be an error."""
    start, sent, detail = time.perf_counter(), time.time(), ""
    try:
        async with asyncio.timeout(deadline + PATIENCE):
            reply = await rpc(message, timeout=deadline, metadata=metadata)
        outcome = OK if right(reply) else "OK, wrong answer"
    except grpc.aio.AioRpcError as error:
        outcome = " ".join(filter(None, (error.code().name, reason(error))))
        detail = error.details() or ""
    except TimeoutError:
        outcome = "never ended"
    return Answer(request, model, outcome, time.perf_counter() - start, sent, detail)


def reason(error: grpc.aio.AioRpcError) -> str:
    """Return the reason in the ErrorInfo of `error`, "" if there is none."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return str(info.reason)
    return ""
