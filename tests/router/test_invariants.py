"""Random interleavings over two routers and two nodes; invariants by their numbers."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.router.support.simulation import MODELS, World

ROUTER = st.integers(0, 1)
NODE = st.sampled_from("ab")
MODEL = st.sampled_from(sorted(MODELS))
INDEX = st.integers(0, 1_000)


class Interleavings(RuleBasedStateMachine):
    """Clients, nodes and routers do what they do, in any order."""

    url = staticmethod(lambda: f"sqlite:///{Path(tempfile.mkdtemp()) / 'registry.db'}")

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.url())

    def step(self, coroutine: Any = None) -> None:
        async def go() -> None:
            if coroutine is not None:
                await coroutine
            await self.world.settle()

        self.world.run(go())

    # Clients

    @rule(
        router=ROUTER,
        model=MODEL,
        stream=st.booleans(),
        on_stale=st.sampled_from(["retry", "return"]),
    )
    def route(self, router: int, model: str, stream: bool, on_stale: str) -> None:
        self.world.request(router, model, stream, on_stale)
        self.step()

    @precondition(lambda self: self.world.calls)
    @rule(index=INDEX)
    def tell(self, index: int) -> None:
        """A call goes on: it completes, streams a message, or fails, maybe very late."""
        call = self.world.calls[index % len(self.world.calls)]

        async def go() -> None:
            call.tell()

        self.step(go())

    @precondition(lambda self: self.world.tasks)
    @rule(index=INDEX)
    def cancel(self, index: int) -> None:
        self.world.tasks[index % len(self.world.tasks)].cancel()
        self.step()

    # Nodes

    @rule(node=NODE, model=MODEL)
    def evict(self, node: str, model: str) -> None:
        """Behind the routers' back."""
        self.world.nodes[node].evict(model)

    @rule(node=NODE)
    def restart(self, node: str) -> None:
        self.world.nodes[node].restart()

    @rule(node=NODE, router=ROUTER)
    def heartbeat(self, node: str, router: int) -> None:
        beat = self.world.nodes[node].beat()
        registry: Any = self.world.routers[router].registry
        before = self.world.run(registry.rows())
        self.step(self.world.routers[router].heartbeat(beat))
        again = self.world.run(registry.rows())
        self.step(self.world.routers[router].heartbeat(beat))
        assert self.world.run(registry.rows()) == again, "invariant 15: same boot, same news"
        others = {key: row for key, row in before.items() if key[0] != node}
        assert others.items() <= again.items(), "invariant 15: only its own rows"

    @rule(node=NODE, slow=st.booleans())
    def pace(self, node: str, slow: bool) -> None:
        """Loads hang, or all that hung go on."""
        host = self.world.nodes[node]
        host.slow = slow

        async def go() -> None:
            while not slow and host.gates:
                gate = host.gates.pop(0)
                if not gate.done():
                    gate.set_result(None)

        self.step(go())

    @rule(node=NODE, silent=st.booleans(), router=ROUTER)
    def silence(self, node: str, silent: bool, router: int) -> None:
        """Invariant 14."""
        host, target = self.world.nodes[node], self.world.routers[router]
        host.silent = silent
        registry: Any = target.registry
        self.step()  # what others had begun is not what the probe does
        before = self.world.run(registry.rows())
        entry = target.table.nodes[node]
        entry.fresh_until = 0.0
        assert self.world.run(target.probe_health(node)) is not silent
        after = self.world.run(registry.rows())
        # What was being evicted may go meanwhile, and what was being loaded may come.
        kept = {where: row.generation for where, row in before.items() if not row.evicting}
        now = {where: row.generation for where, row in after.items()}
        assert kept.items() <= now.items(), "invariant 14: silence deletes nothing"

    # Routers

    @rule(router=ROUTER)
    def follow(self, router: int) -> None:
        """Without this step, notifications are lost."""
        self.step(self.world.follow(router))

    @rule(router=ROUTER)
    def relist(self, router: int) -> None:
        self.step(self.world.routers[router].watcher.relist())

    @rule(seconds=st.sampled_from([0.1, 3.0, 11.0, 21.0]))
    def wait(self, seconds: float) -> None:
        """Leases run out."""
        self.world.clock.advance(seconds)
        self.step()

    # What holds at any time

    @invariant()
    def counts_are_conserved(self) -> None:
        for number, router in enumerate(self.world.routers):
            outstanding = sum(call.router == number for call in self.world.calls)
            assert router.table.in_flight() == outstanding, "invariant 9"

    @invariant()
    def nothing_is_executed_twice(self) -> None:
        assert max(self.world.executed.values(), default=0) <= 1, "invariant 7"

    @invariant()
    def nothing_is_sent_again_after_the_first_message(self) -> None:
        for number, sent in self.world.first_message.items():
            assert self.world.sent[number] == sent, "invariant 8"

    @invariant()
    def a_generation_is_dropped_once(self) -> None:
        heals = self.world.run(self.world.routers[0].registry.heals(1000))
        dropped = [heal.generation for heal in heals if heal.action == "dropped"]
        assert len(dropped) == len(set(dropped)), "invariant 13"

    @invariant()
    def rows_are_unique_and_fit(self) -> None:
        snapshot = self.world.run(self.world.routers[0].registry.snapshot())
        for view in snapshot.nodes:
            assert view.node is not None
            names = [row.model for row in view.replicas]
            assert len(names) == len(set(names)), "invariant 2"
            assert len(names) <= view.node.slots, "invariant 2: more rows than slots"

    @invariant()
    def the_tables_hold_nothing_newer_than_the_registry(self) -> None:
        registry: Any = self.world.routers[0].registry
        rows = self.world.run(registry.rows())
        for router in self.world.routers:
            for model in MODELS:
                for entry in router.table.replicas(model):
                    row = rows.get((entry.node.name, model))
                    assert row is None or row.generation >= entry.generation

    def teardown(self) -> None:
        """Quiescent: everything ends, and every count is back at zero."""
        world = self.world
        try:
            for node in world.nodes.values():
                node.slow = node.silent = False
            for task in world.tasks.values():
                task.cancel()
            self.step()
            for router in world.routers:
                assert router.table.in_flight() == 0, "invariant 9: quiescent"
                counts = [entry.in_flight for m in MODELS for entry in router.table.replicas(m)]
                assert not any(counts), "invariant 9: quiescent"
        finally:
            world.close()


def check(machine: type[Interleavings], examples: int, steps: int) -> None:
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # To shrink takes minutes, and the same failure comes again.
        phases=(Phase.generate,),
        derandomize=settings().derandomize,
    )
    run_state_machine_as_test(machine, settings=profile)


def test_interleavings_on_sqlite() -> None:
    check(Interleavings, examples=12, steps=40)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_many_interleavings_on_sqlite() -> None:
    check(Interleavings, examples=40, steps=60)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_interleavings_on_postgres(postgres: Any) -> None:
    admin = sa.create_engine(
        sa.make_url(postgres.get_uri()).set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",
    )
    numbers = itertools.count()

    class OnPostgres(Interleavings):
        @staticmethod
        def url() -> str:
            name = f"interleavings_{next(numbers)}"
            with admin.connect() as conn:
                conn.execute(sa.text(f"create database {name}"))
            return str(postgres.get_uri(database=name))

    check(OnPostgres, examples=10, steps=40)
    admin.dispose()
