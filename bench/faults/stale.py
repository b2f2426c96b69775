"""Scenarios with nodes that lose their models, and with errors that only look like it."""

from __future__ import annotations

import asyncio
import random
import wave
from typing import TYPE_CHECKING

import grpc

from bench.faults.report import OK, Result, right
from bench.faults.traffic import Callers, at_rate, call
from bench.faults.world import until
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.faults.traffic import Answer
    from bench.faults.world import World

VOICES = (
    "model not loaded",
    "echo: model not loaded",
    "no model loaded",
    "'X' object has no attribute 'model'",
    'model identity mismatch: loaded "a", requested "b"',
)
FILES = ("model not loaded.wav", "model identity mismatch.wav", "no model loaded.wav")


async def evictions(world: World, seconds: float) -> Result:
    """Unload models without telling the router, 20 times per second at 100 requests per second."""
    gateway = await world.gateway(world.models("a", "b", replicas=2))
    nodes = [await world.node(f"n{index}", gateway, slots=2) for index in range(2)]
    result = Result("evictions")
    async with Callers(gateway.address) as callers:
        for model in "ab":
            await warm(callers, model)
        await until(lambda: _held(world, "ab", 4))
        freed = asyncio.create_task(free([node.address for node in nodes], "ab", 20))
        result.count(await callers.drive(100, seconds, "ab", deadline=30))
        freed.cancel()
    await world.record(result)
    result.check_share("answered", result.ok, result.sent, 0.999)
    result.check_none("executed twice", result.twice)
    return result


async def words(world: World, _seconds: float) -> Result:
    """Requests that contain the words of the contract, on real backends."""
    gateway = await world.gateway(
        '[models]\ntalk = { backend = "speaker" }\nhear = { backend = "transcriber" }\n'
    )
    await world.node("s", gateway, backend="speaker")
    await world.node("t", gateway, backend="transcriber")
    return await _words(world, gateway.address, "words", "talk", "hear")


async def quoted_words(world: World, _seconds: float) -> Result:
    """The same with a foreign backend that quotes the request and does not implement Status."""
    gateway = await world.gateway('[models]\nm = { backend = "foreign" }\n')
    node = await world.foreign()
    await world.add_node(gateway, node, "f", "foreign")
    return await _words(world, gateway.address, "quoted-words", "m", "m")


async def _words(world: World, address: str, name: str, talk: str, hear: str) -> Result:
    """Send normal requests and attacks; no attack may make the router drop a model."""
    spoken = str(world.folder / "spoken.wav")
    silence = str(world.folder / "silence.wav")
    with wave.open(silence, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(16_000))
    result = Result(name)
    async with Callers(address) as callers:
        (stub,) = callers.stubs

        async def speak(request: str, voice: str = "") -> Answer:
            message = pb.TTSRequest(model=talk, text="Yes.", dst=spoken, voice=voice)
            key = (("x-model-id", talk),)
            return await call(stub.TTS, message, talk, request, deadline=60, metadata=key)

        async def transcribe(request: str, file: str) -> Answer:
            message = pb.TranscriptRequest(dst=file)
            key = (("x-model-id", hear),)
            rpc = stub.AudioTranscription
            return await call(rpc, message, hear, request, deadline=60, metadata=key)

        honest = [await speak("honest"), await transcribe("honest", silence)]
        attacks = [await speak(f"voice {voice}", voice) for voice in VOICES * 2]
        attacks += [await transcribe(f"file {file}", file) for file in FILES * 2]
        honest += [await speak("honest"), await transcribe("honest", silence)]
    result.count(honest + attacks)
    await world.record(result)
    unavailable = sum("UNAVAILABLE" in each.outcome for each in honest + attacks)
    result.check_none("heals", result.heals)
    result.check_none("UNAVAILABLE", unavailable)
    models = len({talk, hear})
    result.check("loads", f"<= {models}", result.loads, passed=result.loads <= models)
    return result


async def always_fails_in_words(world: World, _seconds: float) -> Result:
    """One RPC always fails with a text that sounds stale, while another one works."""
    result = Result("always-fails-in-words")
    models = ("unknown", "failed_precondition")
    lines = "\n".join(f'{model} = {{ backend = "{model}" }}' for model in models)
    gateway = await world.gateway(f"[models]\n{lines}\n")
    for model in models:
        node = await world.foreign("--embedding-code", model.upper())
        await world.add_node(gateway, node, f"node-{model}", model)
    good: list[Answer] = []
    async with Callers(gateway.address) as callers:
        (stub,) = callers.stubs
        for model in models:
            await warm(callers, model)
            bad = pb.PredictOptions(Prompt="x", ModelIdentity=model)
            for index in range(10):
                result.count([await call(stub.Embedding, bad, model, "bad", deadline=10)])
                good.append(await callers.predict(model, f"{model}-{index}", deadline=10))
    result.count(good)
    await world.record(result)
    result.check_share("the other RPC", right(good), len(good), 1.0)
    for model in models:
        loads = world.ledger("LoadModel").count(model)
        result.check(f"loads, {model}", "<= 2", loads, passed=loads <= 2)
    result.check_none("executed twice", result.twice)
    return result


async def foreign_restart(world: World, seconds: float) -> Result:
    """A foreign node that returns its errors in OK responses restarts without its model."""
    gateway = await world.gateway('[models]\nm = { backend = "foreign" }\n')
    node = await world.foreign("--error-inside")
    await world.add_node(gateway, node, "f", "foreign")
    result = Result("foreign-restart")
    async with Callers(gateway.address) as callers:
        await warm(callers, "m")

        async def restart() -> float:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(seconds / 4)
            await node.kill()
            await world.foreign("--error-inside", listen=node.address)
            return loop.time()

        start = asyncio.get_running_loop().time()
        restarted = asyncio.create_task(restart())
        answers = await callers.drive(5, seconds, ["m"], deadline=10)
        back = await restarted - start
    result.count(answers)
    await world.record(result)
    late = answers[int(5 * (back + (seconds - back) / 2)) :]
    result.check_share("correct, second half after restart", right(late), len(late), 1.0)
    wrong = result.failures("wrong answer")
    result.check("OK, wrong answer", "<= 1", wrong, passed=wrong <= 1)
    return result


async def free(nodes: Sequence[str], models: Sequence[str], rate: float) -> None:
    """Unload random models `rate` times per second until cancelled, with a fixed seed."""
    rng = random.Random(4)
    channels = [grpc.aio.insecure_channel(node) for node in nodes]

    async def one(_index: int) -> None:
        stub = BackendStub(rng.choice(channels))
        key = (("x-model-id", rng.choice(models)),)
        await call(stub.Free, pb.HealthMessage(), "", "", deadline=10, metadata=key)

    try:
        await at_rate(rate, 3600, one)
    finally:
        for channel in channels:
            await channel.close()


async def warm(callers: Callers, model: str) -> None:
    """Call a model until it answers, so that its first load is not measured."""

    async def answers() -> bool:
        return (await callers.predict(model, f"warm-{model}-{random.random()}")).outcome == OK

    await until(answers)


async def _held(world: World, models: Sequence[str], replicas: int) -> bool:
    (gateway,) = world.gateways
    return sum([len(await world.holders(gateway, model)) for model in models]) >= replicas
