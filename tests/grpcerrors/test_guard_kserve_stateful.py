"""Random histories of loads, unloads and calls against real KServe servers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run

from tests.grpcerrors.support.guarded import Answer, answer
from tests.grpcerrors.support.kserve import Client, kserve

if TYPE_CHECKING:
    from collections.abc import Iterable

models = st.sampled_from(["a", "b"])
endings = st.sampled_from(["", "", "say:NO", "raise", "code:INTERNAL"])
_gates = map(str, itertools.count())


class Change:
    """A load or unload in progress."""

    def __init__(self, client: Client, rpc: str, model: str, does: str) -> None:
        self.model = model
        self.loads = rpc == "Load"
        self.succeeds = self.loads and not does
        self.overlapped = False
        self.gate = next(_gates)
        self.call: Any = client.change(rpc, model, f"wait:{self.gate} {does}")
        client.gates.reached(self.gate)


class Running:
    """An inference in progress."""

    def __init__(self, client: Client, rpc: str, model: str, does: str) -> None:
        self.model = model
        self.fails = does == "raise"
        self.stale = False
        self.gate = next(_gates)
        self.call: Any = call(client, rpc, model, f"wait:{self.gate} {does}")
        client.gates.reached(self.gate)


def call(client: Client, rpc: str, model: str, does: str = "") -> Any:
    return client.infer(model, does) if rpc == "infer" else client.stream(model, does=does)


class KServe(RuleBasedStateMachine):
    """The truth: which models are loaded, what is being changed, and who runs."""

    client: Client
    changes = Bundle("changes")
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.client.guard.unloaded()
        self.client.store.models.clear()
        self.loaded: set[str] = set()
        self.under_way: list[Change] = []
        self.running: list[Running] = []

    def of(self, model: str) -> list[Change]:
        return [change for change in self.under_way if change.model == model]

    def expected(self, model: str) -> str:
        changes = self.of(model)
        if not changes:
            return "OK" if model in self.loaded else "MODEL_NOT_LOADED"
        coming = all(each.loads for each in changes) and not all(
            each.overlapped for each in changes
        )
        return "MODEL_LOADING" if coming else "MODEL_NOT_LOADED"

    @rule(model=models, rpc=st.sampled_from(["infer", "stream"]))
    def ask(self, model: str, rpc: str) -> None:
        seen = answer(call(self.client, rpc, model))
        assert seen.verdict == self.expected(model)
        unexecuted = seen.trailers.get("grpcerrors-unexecuted", "OK")
        assert unexecuted == self.expected(model)

    def has_threads(self) -> bool:
        """Whether the server, which has 16, has some left."""
        return len(self.under_way) + len(self.running) < 8

    @precondition(has_threads)
    @rule(target=changes, rpc=st.sampled_from(["Load", "Unload"]), model=models, does=endings)
    def begin(self, rpc: str, model: str, does: str) -> Change:
        change = Change(self.client, rpc, model, does)
        self.under_way.append(change)
        return change

    @rule(change=consumes(changes))
    def end(self, change: Change) -> None:
        self.client.gates.open(change.gate)
        answer(change.call)
        self.under_way.remove(change)
        for other in self.of(change.model):
            other.overlapped |= not (change.succeeds and other.loads)
        self.loaded.discard(change.model)
        if change.succeeds and not change.overlapped:
            self.loaded.add(change.model)
        for running in self.running:
            running.stale |= running.model == change.model

    @precondition(has_threads)
    @rule(
        target=calls,
        rpc=st.sampled_from(["infer", "stream"]),
        model=models,
        does=st.sampled_from(["", "raise"]),
    )
    def enter(self, rpc: str, model: str, does: str) -> Running | None:
        if self.expected(model) != "OK":
            return None
        running = Running(self.client, rpc, model, does)
        self.running.append(running)
        return running

    @rule(running=consumes(calls))
    def leave(self, running: Running | None) -> None:
        if running is None:
            return
        self.running.remove(running)
        self.client.gates.open(running.gate)
        seen = answer(running.call)
        if not running.fails and running.model in self.client.store.models:
            assert seen.verdict == "OK"
        elif running.stale or self.of(running.model):
            assert seen.verdict == "MODEL_NOT_LOADED started"
            assert "grpcerrors-unexecuted" not in seen.trailers
        else:
            assert held(seen) == ("UNKNOWN", running.model)

    def teardown(self) -> None:
        left: Iterable[Change | Running] = [*self.running, *self.under_way]
        for each in left:
            self.client.gates.open(each.gate)
            answer(each.call)


def held(seen: Answer) -> tuple[str, str | None]:
    return seen.verdict, seen.trailers.get("grpcerrors-held")


@pytest.mark.parametrize("surface", ["sync", "aio", "aio reader", "sync on aio"])
def test_every_answer_follows_from_the_history(surface: str) -> None:
    few = settings(max_examples=30, stateful_step_count=30, suppress_health_check=list(HealthCheck))

    class OnTheServer(KServe):
        pass

    with kserve(surface) as OnTheServer.client:
        run(OnTheServer, settings=few)
