"""The guard's state machine against a model of what may be served."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from grpcerrors import (
    MODEL_LOADING,
    MODEL_MISMATCH,
    MODEL_NOT_LOADED,
    ContractError,
    classify,
)
from grpcerrors._guard.hosts import Asked, Tracked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grpcerrors import Condition
    from grpcerrors._guard.models import Call, Change, Models

NAMES = ("a", "b")
identities = st.sampled_from(NAMES)
names = wanted = st.sampled_from((*NAMES, ""))


def serve(models: set[str], identity: str) -> bool:
    return bool(models & {identity, ""} if identity else models)


def enter(models: Models, identity: str) -> tuple[Call | None, Condition | None]:
    try:
        return models.enter(identity), None
    except ContractError as refusal:
        return None, refusal.condition


class TrackedMachine(RuleBasedStateMachine):
    """The truth is a log of events; what the machine says must follow from it."""

    several: bool
    calls = Bundle("calls")
    changes = Bundle("changes")

    def __init__(self) -> None:
        super().__init__()
        self.models = Tracked("x", several=self.several)
        self.clock = 0
        self.loaded_at: dict[str, int] = {}
        self.emptied_at = -1  # when a change last left no model
        self.under_way: dict[Change, str | None] = {}  # and what each can replace
        self.in_flight: dict[Call, tuple[int, str | None]] = {}
        self.awaited: dict[Change, set[Call]] = {}
        self.disturbed: set[Change] = set()
        self.started: set[Change] = set()

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    def there(self, changes: Iterable[Change]) -> set[str]:
        """The models that none of the changes can replace."""
        scopes = {self.under_way[change] for change in changes}
        return {model for model in self.loaded_at if not scopes & {None, model}}

    def together(self, change: Change) -> list[Change]:
        """The changes in progress, itself included, that can replace the same model."""
        scope = self.under_way[change]
        scopes = self.under_way.items()
        return [other for other, its in scopes if None in (its, scope) or its == scope]

    def coming(self, identity: str) -> bool:
        """Whether a load is in progress that will serve that model if it succeeds."""
        return any(
            change.model is not None
            and serve({change.model}, identity)
            and change not in self.disturbed
            and {other.model for other in self.together(change)} == {change.model}
            for change in self.under_way
        )

    @rule(target=calls, identity=wanted)
    def enter(self, identity: str) -> Call | None:
        there = self.there(self.under_way)
        call, refusal = enter(self.models, identity)
        if serve(there, identity):
            assert refusal is None
        elif not self.several and self.loaded_at and not self.under_way:
            assert refusal == MODEL_MISMATCH
        else:
            assert refusal == (MODEL_LOADING if self.coming(identity) else MODEL_NOT_LOADED)
        if call is None:
            return None
        by_name = {identity, ""} & there if identity else there
        model = identity if identity in by_name else min(by_name) if len(by_name) == 1 else None
        self.in_flight[call] = self.tick(), model
        return call

    @rule(call=consumes(calls))
    def leave(self, call: Call | None) -> None:
        if call is None:
            return
        entered, model = self.in_flight.pop(call)
        there = self.there(self.started)
        if model is not None:
            kept = model in there and self.loaded_at[model] < entered
            assert self.models.held(call) == (model if kept else None)
        elif entered > self.emptied_at:
            assert self.models.held(call) == ("" if there else None)
        else:
            assert self.models.held(call) is None
        self.models.leave(call)
        for calls in self.awaited.values():
            calls.discard(call)

    def begun(self, change: Change, scope: str | None) -> Change:
        self.under_way[change] = scope if self.several else None
        self.tick()
        self.awaited[change] = {
            call
            for call, (_, model) in self.in_flight.items()
            if None in (model, self.under_way[change]) or model == self.under_way[change]
        }
        return change

    @rule(target=changes, identity=names)
    def load(self, identity: str) -> Change:
        return self.begun(self.models.load(identity), identity)

    @rule(target=changes, identity=st.one_of(st.none(), names))
    def unload(self, identity: str | None) -> Change:
        return self.begun(self.models.unload(identity), identity)

    @rule(change=changes)
    def start(self, change: Change) -> None:
        self.models.start(change)
        self.started.add(change)

    def ended(self, change: Change) -> str | None:
        self.started.discard(change)
        del self.awaited[change]
        return self.under_way.pop(change)

    @rule(change=consumes(changes))
    def keep(self, change: Change) -> None:
        self.models.keep(change)
        self.ended(change)

    @rule(change=consumes(changes), succeeded=st.booleans())
    def commit(self, change: Change, succeeded: bool) -> None:
        loaded = succeeded and change.model is not None
        alone = change not in self.disturbed
        self.models.commit(change, loaded=loaded)
        self.disturbed |= {
            other for other in self.together(change) if not (loaded and other.model == change.model)
        }
        scope = self.ended(change)
        self.replace(scope, change.model if loaded and alone else None)

    def replace(self, scope: str | None, model: str | None) -> None:
        for each in (*NAMES, "") if scope is None else (scope,):
            self.loaded_at.pop(each, None)
        if not self.loaded_at:
            self.emptied_at = self.tick()
        if model is not None:
            self.loaded_at[model] = self.tick()

    @rule(identity=st.one_of(st.none(), names))
    def unloaded(self, identity: str | None) -> None:
        self.models.unloaded(identity)
        self.replace(identity if self.several else None, None)

    @rule(identity=names)
    def loaded(self, identity: str) -> None:
        self.models.loaded(identity)
        self.replace(identity if self.several else None, identity)

    @invariant()
    def a_change_waits_for_the_calls_before_it(self) -> None:
        for change, calls in self.awaited.items():
            assert change.drained.done() == (not calls)

    @invariant()
    def a_call_that_names_no_model_is_served_by_any(self) -> None:
        refused = self.models.refusal("") is not None
        assert refused == (not self.there(self.under_way))


class OneModelMachine(TrackedMachine):
    several = False


class SeveralModelsMachine(TrackedMachine):
    several = True


# A step is a whole history: hundreds of them say what thousands of single values do elsewhere.
_FEW = settings(max_examples=80)

TestOneModel = OneModelMachine.TestCase
TestOneModel.settings = _FEW

TestSeveralModels = SeveralModelsMachine.TestCase
TestSeveralModels.settings = _FEW


class AskedMachine(RuleBasedStateMachine):
    """A host whose models come and go; the guard hears of it by changes and by asking."""

    calls = Bundle("calls")
    loads = Bundle("loads")

    def __init__(self) -> None:
        super().__init__()
        self.held: set[str] = set()
        self.models = Asked("x", several=True, holds=lambda identity: identity in self.held)
        self.missed: dict[Call, bool] = {}
        self.loading: dict[Change, str] = {}

    @rule(target=calls, identity=identities)
    def enter(self, identity: str) -> Call | None:
        call, refusal = enter(self.models, identity)
        if identity in self.held:
            assert refusal is None
        else:
            coming = identity in self.loading.values()
            assert refusal == (MODEL_LOADING if coming else MODEL_NOT_LOADED)
        if call is not None:
            self.missed[call] = False
        return call

    @rule(call=consumes(calls))
    def leave(self, call: Call | None) -> None:
        if call is None:
            return
        gone = self.missed.pop(call) or call.identity not in self.held
        assert self.models.held(call) == (None if gone else call.identity)
        self.models.leave(call)

    @rule(target=loads, identity=identities)
    def load(self, identity: str) -> Change:
        change = self.models.load(identity)
        self.loading[change] = identity
        return change

    @rule(change=consumes(loads), succeeded=st.booleans())
    def end(self, change: Change, succeeded: bool) -> None:
        self.models.commit(change, loaded=succeeded)
        identity = self.loading.pop(change)
        for call in self.missed:
            self.missed[call] |= call.identity not in self.held
        if succeeded:
            self.held.add(identity)

    @rule(held=st.sets(identities), told=st.booleans())
    def change(self, held: set[str], told: bool) -> None:
        change = self.models.unload(None)
        self.held = held
        if told:
            self.models.commit(change, loaded=False)
        else:
            self.models.keep(change)
            self.models.loaded("a")
            self.models.unloaded(None)
        for call in self.missed:
            self.missed[call] |= call.identity not in held


TestAsked = AskedMachine.TestCase
TestAsked.settings = _FEW


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("kind", ["tracked", "asked"])
def test_a_caller_is_told_when_to_ask_again(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the last load took; then after as long again, within bounds."""
    clock = Clock()
    monkeypatch.setattr("grpcerrors._guard.models.monotonic", clock)
    held: set[str] = set()
    made: Models = (
        Tracked("x", several=False)
        if kind == "tracked"
        else Asked("x", several=False, holds=held.__contains__)
    )

    def told(after: float) -> float | None:
        clock.now += after
        refusal = made.refusal("m")
        assert refusal is not None
        assert refusal.condition == MODEL_LOADING
        return classify(refusal).retry_after

    first = made.load("m")
    assert [told(0), told(0.3), told(0.3), told(100)] == pytest.approx([0.1, 0.3, 0.6, 5])
    made.commit(first, loaded=False)
    held.add("m")
    second = made.load("m")
    clock.now += 3
    made.commit(second, loaded=True)
    assert made.refusal("m") is None
    held.clear()
    third = made.load("m")
    assert [told(0), told(2), told(0.95), told(0.25)] == pytest.approx([3, 1, 0.1, 3.2])
    made.commit(third, loaded=False)
    refusal = made.refusal("m")
    assert refusal is not None
    assert refusal.condition == MODEL_NOT_LOADED


def test_a_load_that_ends_while_the_host_is_asked_counts_as_running() -> None:
    """A model that is about to be there is not reported as gone."""

    def holds(identity: str) -> bool:
        made.commit(load, loaded=True)
        return False

    made = Asked("x", several=False, holds=holds)
    load = made.load("m")
    refusal = made.refusal("m")
    assert refusal is not None
    assert refusal.condition == MODEL_LOADING


def test_a_predicate_that_raises_does_not_hold_the_model(caplog: pytest.LogCaptureFixture) -> None:
    def holds(identity: str) -> bool:
        raise KeyError(identity)

    with caplog.at_level(logging.ERROR), pytest.raises(ContractError) as caught:
        Asked("x", several=True, holds=holds).enter("m")
    assert caught.value.condition == MODEL_NOT_LOADED
    assert "holds('m') failed" in caplog.text
