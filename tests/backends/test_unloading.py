"""However a model is unloaded, the process keeps running and every RPC gets the typed error."""

from __future__ import annotations

import pytest

from grpcerrors_protocol import backend_pb2 as pb

from .support.calls import every_call_is_typed, every_call_works, fails_typed
from .support.hosting import PATIENCE, UNINITIALIZED, host, until

pytestmark = pytest.mark.slow
MIB = 1 << 20
backends = pytest.mark.parametrize(
    "name", ["echo", "tests.backends.support.samples:Sync", "tests.backends.support.samples:Aio"]
)


@backends
def test_freshly_started_after_free_and_after_a_failed_load(name: str) -> None:
    with host(name) as process:
        every_call_is_typed(process)
        process.load()
        every_call_works(process)
        assert process.free().success
        every_call_is_typed(process)
        process.load()
        failing = pb.ModelOptions(Model="m", Options=["fail_load:out of memory"])
        result = process.stub.LoadModel(failing, timeout=PATIENCE)
        assert not result.success
        assert result.message
        every_call_is_typed(process)
        process.load()
        every_call_works(process)
        assert process.terminate() == 0


@backends
def test_after_idle_time(name: str) -> None:
    with host(name, "--idle-ttl", 0.2) as process:
        process.load()
        until(lambda: process.status().state == UNINITIALIZED)
        every_call_is_typed(process)
        process.load()
        every_call_works(process)


@backends
def test_after_another_model_took_the_slot(name: str) -> None:
    with host(name, "--slots", 2) as process:
        for model in "abc":
            process.load(model)
        every_call_is_typed(process, "a")
        for model in "bc":
            every_call_works(process, model)
        named = pb.PredictOptions(Prompt="hi", ModelIdentity="a")
        fails_typed(lambda: process.stub.Predict(named, timeout=PATIENCE), "a")


@backends
def test_under_memory_pressure_and_the_memory_comes_back(name: str) -> None:
    with host(name) as process:
        start = process.status().memory.total
    limit = start / MIB + 100
    with host(name, "--max-rss", limit) as process:
        process.load("small", "ballast_mib:20")
        every_call_works(process)
        process.load("large", "ballast_mib:200")
        until(lambda: process.status().state == UNINITIALIZED)
        every_call_is_typed(process, "large")
        assert process.status().memory.total < limit * MIB
        process.load("small", "ballast_mib:20")
        every_call_works(process, "small")


@backends
def test_free_gives_the_memory_back(name: str) -> None:
    with host(name) as process:
        process.load()
        every_call_works(process)
        process.free()
        start = process.status().memory.total
        process.load("large", "ballast_mib:200")
        assert process.status().memory.total > start + 190 * MIB
        process.free()
        assert process.status().memory.total < start * 1.1
