"""The guard's state machine against a model of what may be served."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from grpcerrors import MODEL_MISMATCH, MODEL_NOT_LOADED, ContractError
from grpcerrors._guard.models import ManyModels, OneModel

if TYPE_CHECKING:
    from grpcerrors import Condition
    from grpcerrors._guard.models import Call, Change, Models

identities = st.sampled_from(["a", "b"])


def enter(models: Models, identity: str) -> tuple[Call | None, Condition | None]:
    try:
        return models.enter(identity), None
    except ContractError as refusal:
        return None, refusal.condition


class OneModelMachine(RuleBasedStateMachine):
    """The truth is a log of events; what the machine says must follow from it."""

    calls = Bundle("calls")
    changes = Bundle("changes")

    def __init__(self) -> None:
        super().__init__()
        self.models = OneModel("x")
        self.clock = 0
        self.loaded: str | None = None
        self.replaced = -1  # when the last change took effect
        self.under_way: dict[Change, int] = {}
        self.in_flight: dict[Call, int] = {}
        self.awaited: dict[Change, set[Call]] = {}
        self.disturbed: set[Change] = set()
        self.started: set[Change] = set()

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    @rule(target=calls, identity=st.one_of(st.just(""), identities))
    def enter(self, identity: str) -> Call | None:
        servable = self.loaded is not None and not self.under_way
        call, refusal = enter(self.models, identity)
        if not servable:
            assert refusal == MODEL_NOT_LOADED
        elif identity not in ("", self.loaded):
            assert refusal == MODEL_MISMATCH
        else:
            assert refusal is None
        if call is None:
            return None
        self.in_flight[call] = self.tick()
        return call

    @rule(call=consumes(calls))
    def leave(self, call: Call | None) -> None:
        if call is None:
            return
        entered = self.in_flight.pop(call)
        gone = bool(self.started) or entered < self.replaced
        assert self.models.held(call) == (None if gone else self.loaded)
        self.models.leave(call)
        for calls in self.awaited.values():
            calls.discard(call)

    @rule(target=changes)
    def begin(self) -> Change:
        change = self.models.begin()
        self.under_way[change] = self.tick()
        self.awaited[change] = set(self.in_flight)
        return change

    @rule(change=changes)
    def start(self, change: Change) -> None:
        self.models.start(change)
        self.started.add(change)

    @rule(change=consumes(changes))
    def keep(self, change: Change) -> None:
        self.models.keep(change)
        self.started.discard(change)
        del self.under_way[change], self.awaited[change]

    @rule(change=consumes(changes), identity=st.one_of(st.none(), identities))
    def commit(self, change: Change, identity: str | None) -> None:
        alone = change not in self.disturbed
        self.models.commit(change, identity)
        self.started.discard(change)
        del self.under_way[change], self.awaited[change]
        self.disturbed |= set(self.under_way)
        self.loaded = identity if alone else None
        self.replaced = self.tick()

    @rule()
    def unloaded(self) -> None:
        self.models.unloaded()
        self.loaded = None
        self.replaced = self.tick()

    @invariant()
    def a_change_waits_for_the_calls_before_it(self) -> None:
        for change, calls in self.awaited.items():
            assert change.drained.done() == (not calls)

    @invariant()
    def nothing_is_served_while_a_change_is_under_way(self) -> None:
        refused = self.models.refusal("") is not None
        assert refused == (bool(self.under_way) or self.loaded is None)


# A step is a whole history: hundreds of them say what thousands of single values do elsewhere.
_FEW = settings(max_examples=300)

TestOneModel = OneModelMachine.TestCase
TestOneModel.settings = _FEW


class ManyModelsMachine(RuleBasedStateMachine):
    """A host whose models come and go; the guard hears of it by changes and by asking."""

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.held: set[str] = set()
        self.models = ManyModels("x", lambda identity: identity in self.held)
        self.missed: dict[Call, bool] = {}

    @rule(target=calls, identity=identities)
    def enter(self, identity: str) -> Call | None:
        call, refusal = enter(self.models, identity)
        assert refusal == (None if identity in self.held else MODEL_NOT_LOADED)
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

    @rule(held=st.sets(identities), told=st.booleans())
    def change(self, held: set[str], told: bool) -> None:
        change = self.models.begin()
        self.held = held
        if told:
            self.models.commit(change, None)
        else:
            self.models.keep(change)
            self.models.unloaded()
        for call in self.missed:
            self.missed[call] |= call.identity not in held


TestManyModels = ManyModelsMachine.TestCase
TestManyModels.settings = _FEW


def test_a_predicate_that_raises_does_not_hold_the_model(caplog: pytest.LogCaptureFixture) -> None:
    def holds(identity: str) -> bool:
        raise KeyError(identity)

    with caplog.at_level(logging.ERROR), pytest.raises(ContractError) as caught:
        ManyModels("x", holds).enter("m")
    assert caught.value.condition == MODEL_NOT_LOADED
    assert "holds('m') failed" in caplog.text
