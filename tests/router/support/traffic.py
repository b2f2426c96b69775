"""Requests from threads of their own, so that a test may block or wait as it likes."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import grpc

from grpcerrors import classify
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

WITHIN = 60.0  # seconds for what a test waits for; only a hang reaches it
PAUSE = 0.05
PATIENCE = 2.0  # seconds that a request waits for its answer


class Traffic:
    """Calls Predict of each model in turn, from as many threads as asked for.

    `outcomes` counts, by model, "OK" and the code and reason of each error.
    """

    def __init__(self, address: str) -> None:
        self.outcomes: dict[str, Counter[str]] = {}
        self._channel = grpc.insecure_channel(
            address, options=(("grpc.use_local_subchannel_pool", 1),)
        )
        self._stub = BackendStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()

    @contextmanager
    def to(self, model: str, callers: int = 1) -> Iterator[Counter[str]]:
        """Send requests for `model` while the body runs; yield its outcomes so far."""
        ended, seen = threading.Event(), self.outcomes.setdefault(model, Counter())
        threads = [
            threading.Thread(target=self._send, args=(model, seen, ended)) for _ in range(callers)
        ]
        for thread in threads:
            thread.start()
        try:
            yield seen
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def _send(self, model: str, seen: Counter[str], ended: threading.Event) -> None:
        request = pb.PredictOptions(Prompt="hello", ModelIdentity=model)
        while not ended.is_set():
            outcome = "OK"
            try:
                self._stub.Predict(request, timeout=PATIENCE)
            except grpc.RpcError as error:
                info = classify(error).info
                outcome = f"{error.code().name} {info.reason if info else ''}".strip()
            seen[outcome] += 1
            ended.wait(PAUSE)


async def until_seen(seen: Counter[str], outcome: str, more: int = 1) -> None:
    """Wait for `more` outcomes that contain `outcome`."""

    def count() -> int:
        return sum(number for each, number in list(seen.items()) if outcome in each)

    wanted = count() + more
    async with asyncio.timeout(WITHIN):
        while count() < wanted:
            await asyncio.sleep(PAUSE)
