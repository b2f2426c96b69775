"""Evictions under load: a hundred callers get only right answers and typed errors."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import MODEL_LOADING, MODEL_NOT_LOADED, Evidence, classify
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub

from .support.hosting import PATIENCE, HostProcess, host

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

CALLERS = 100
MODELS = "ab"
BALLAST_MIB = 20
SECONDS = [
    pytest.param(5.0, marks=pytest.mark.slow, id="short"),
    pytest.param(60.0, marks=pytest.mark.soak, id="long"),
]
Tally = Counter[str]


async def _unary(stub: Any, model: str, prompt: str) -> str:
    request = pb.PredictOptions(Prompt=prompt, ModelIdentity=model)
    reply = await stub.Predict(request, timeout=PATIENCE)
    return str(reply.message.decode())


async def _server_stream(stub: Any, model: str, prompt: str) -> str:
    request = pb.PredictOptions(Prompt=prompt, ModelIdentity=model)
    replies = [reply.message async for reply in stub.PredictStream(request, timeout=PATIENCE)]
    return b"".join(replies).decode()


async def _metadata_only(stub: Any, model: str, prompt: str) -> str:
    request = pb.PredictOptions(Prompt=prompt)
    metadata = (("x-model-id", model),)
    return str((await stub.Predict(request, metadata=metadata, timeout=PATIENCE)).message.decode())


def _live(stub: Any, model: str, prompt: str) -> str:
    def requests() -> Iterator[pb.TranscriptLiveRequest]:
        yield pb.TranscriptLiveRequest(config=pb.TranscriptLiveConfig(sample_rate=16_000))
        for _ in range(3):
            yield pb.TranscriptLiveRequest(audio=pb.TranscriptLiveAudio(pcm=[0.0]))

    call = stub.AudioTranscriptionLive(
        requests(), metadata=(("x-model-id", model),), timeout=PATIENCE
    )
    deltas = {response.delta.split(":")[0] for response in call if response.delta}
    return f"{'/'.join(sorted(deltas))}:{prompt}"


async def _bidi(stub: Any, model: str, prompt: str) -> str:
    """Uses a sync client: if a refusal arrives during a write, the aio one reports its own INTERNAL
    ("Internal error from Core") instead of the status that the server sent."""
    return await asyncio.to_thread(_live, stub.sync, model, prompt)


CALLS: list[Callable[[Any, str, str], Awaitable[str]]] = [
    _unary,
    _server_stream,
    _metadata_only,
    _bidi,
]


async def caller(number: int, stub: Any, end: float, tally: Tally) -> None:
    chance = random.Random(number)
    while time.monotonic() < end:
        model, call = chance.choice(MODELS), chance.choice(CALLS)
        prompt = f"{number}-{chance.random()}"
        try:
            answer = await call(stub, model, prompt)
        except grpc.RpcError as error:
            verdict = classify(error)
            known = verdict.condition in (MODEL_LOADING, MODEL_NOT_LOADED)
            typed = known and verdict.evidence is Evidence.DETAILS
            tally["typed" if typed else f"untyped: {error}"] += 1
            await asyncio.sleep(0.001)
        else:
            right = answer == f"{model}:{prompt}"
            tally["right" if right else f"wrong: {model} {prompt} {answer}"] += 1


async def churner(stub: Any, end: float, tally: Tally) -> None:
    chance = random.Random(0)
    while time.monotonic() < end:
        model = chance.choice(MODELS)
        metadata = (("x-model-id", model),)
        if chance.random() < 0.3:
            which = metadata if chance.random() < 0.5 else ()
            result = await stub.Free(pb.HealthMessage(), metadata=which, timeout=PATIENCE)
        else:
            options = [f"prefix:{model}:", f"ballast_mib:{BALLAST_MIB}", "answer_seconds:0.002"]
            request = pb.ModelOptions(Model=model, Options=options)
            result = await stub.LoadModel(request, metadata=metadata, timeout=PATIENCE)
        tally["changes" if result.success else f"failed change: {result.message}"] += 1
        await asyncio.sleep(chance.random() * 0.1)


async def churn(process: HostProcess, seconds: float) -> Tally:
    tally: Tally = Counter()
    end = time.monotonic() + seconds
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(CALLERS // len(CALLS)))
    async with grpc.aio.insecure_channel(process.address) as channel, asyncio.TaskGroup() as group:
        stub = BackendStub(channel)
        stub.sync = process.stub
        for number in range(CALLERS):
            group.create_task(caller(number, stub, end, tally))
        for _ in range(2):
            group.create_task(churner(stub, end, tally))
    return tally


def memory(process: HostProcess) -> int:
    process.free()
    return int(process.status().memory.total)


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize(
    "name", ["echo", "tests.backends.support.samples:Sync", "tests.backends.support.samples:Aio"]
)
def test_every_answer_is_right_or_typed(name: str, seconds: float) -> None:
    with host(name) as process:
        asyncio.run(churn(process, 1))  # threads, arenas and caches that remain are not a leak
        before = memory(process)
        tally = asyncio.run(churn(process, seconds))
        after = memory(process)
        sys.stdout.write(f"{name}: {dict(tally)}, {before >> 20} then {after >> 20} MiB\n")
        assert set(tally) == {"right", "typed", "changes"}
        assert min(tally.values()) > 10, "the test must see each of them"
        assert process.process.poll() is None
        assert after < before * 1.1
        assert "Traceback" not in process.log()
