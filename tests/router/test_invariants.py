"""Random interleavings of two routers and two nodes, checked against the invariants."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

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

from grpcerrors_router.registry import rows
from tests.router.support.simulation import MODELS, Member, World

if TYPE_CHECKING:
    from tests.router.support.postgres import Postgres

ROUTER = st.integers(0, 1)
NODE = st.sampled_from("ab")
MODEL = st.sampled_from(sorted(MODELS))
INDEX = st.integers(0, 1_000)


class Interleavings(RuleBasedStateMachine):
    """Steps of clients, nodes and routers, in any order."""

    url = staticmethod(lambda: f"sqlite:///{Path(tempfile.mkdtemp()) / 'registry.db'}")

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.url())

    @property
    def members(self) -> list[Member]:
        return self.world.members

    # Clients

    @rule(
        router=ROUTER,
        model=MODEL,
        stream=st.booleans(),
        on_stale=st.sampled_from(["retry", "return"]),
    )
    def route(self, router: int, model: str, stream: bool, on_stale: str) -> None:
        self.world.request(router, model, stream, on_stale)

    @rule(router=ROUTER, model=MODEL)
    def unload(self, router: int, model: str) -> None:
        """An operator unloads a model; `cancel` may cancel the operator."""
        self.world.do(router, self.world.members[router].router.unload(model))

    @precondition(lambda self: self.world.calls)
    @rule(index=INDEX)
    def tell(self, index: int) -> None:
        """Advance a call: it completes, streams a message, or fails, perhaps very late."""
        self.world.calls[index % len(self.world.calls)].tell()
        self.world.settle()

    @precondition(lambda self: self.world.tasks)
    @rule(index=INDEX)
    def cancel(self, index: int) -> None:
        """Cancel it wherever it waits: for a slot, a load, an answer, or a commit that succeeds."""
        self.world.tasks[index % len(self.world.tasks)][1].cancel()
        self.world.settle()

    # Nodes

    @rule(node=NODE, model=MODEL)
    def evict(self, node: str, model: str) -> None:
        """The node loses a model without telling the routers."""
        self.world.nodes[node].evict(model)

    @rule(node=NODE, model=MODEL, begins=st.booleans())
    def reload(self, node: str, model: str, begins: bool) -> None:
        """Someone loads a model again that the node holds; the node answers MODEL_LOADING."""
        host = self.world.nodes[node]
        if begins and model in host.held:
            host.reloading.add(model)
        else:
            host.reloading.discard(model)

    @rule(node=NODE)
    def restart(self, node: str) -> None:
        self.world.nodes[node].restart()

    @precondition(lambda self: not any(m.threads.held or m.threads.fault for m in self.members))
    @rule(node=NODE, router=ROUTER)
    def heartbeat(self, node: str, router: int) -> None:
        world = self.world
        world.settle()  # what others had begun is not what the heartbeat does
        beat = world.nodes[node].beat()
        member = world.members[router]
        before = member.registry.rows()
        world.loop.finish(member.router.heartbeat(beat))
        others = {key: row for key, row in before.items() if key[0] != node}
        assert others.items() <= member.registry.rows().items(), "invariant 15: only its own rows"
        world.settle()
        again = member.registry.rows()
        world.loop.finish(member.router.heartbeat(beat))
        assert member.registry.rows() == again, "invariant 15: same boot, same news"

    @rule(node=NODE, slow=st.booleans())
    def pace(self, node: str, slow: bool) -> None:
        """Make loads hang, or let those that hang continue."""
        host = self.world.nodes[node]
        host.repair()
        host.slow = slow
        self.world.settle()

    @rule(node=NODE, silent=st.booleans(), router=ROUTER)
    def silence(self, node: str, silent: bool, router: int) -> None:
        """Invariant 14."""
        world = self.world
        host, target = world.nodes[node], world.members[router]
        world.settle()  # what others had begun is not what the probe does
        host.silent = silent
        before = target.registry.look()
        target.router.table.nodes[node].fresh_until = 0.0
        assert world.loop.finish(target.router.probe_health(node)) is not silent
        after = target.registry.look()
        # Meanwhile, evictions and loads that were running may end.
        victims = {
            (job.node, job.victim) for view in before.nodes for job in view.loads if job.victim
        }
        kept = {
            (row.node, row.model, row.generation)
            for view in before.nodes
            for row in view.replicas
            if (row.node, row.model) not in victims
        }
        now = {(r.node, r.model, r.generation) for view in after.nodes for r in view.replicas}
        assert kept <= now, "invariant 14: silence deletes nothing"

    # Routers

    @rule(router=ROUTER)
    def crash(self, router: int) -> None:
        """Kill a router at any point; one with another name starts in its place."""
        self.world.crash(router)

    @rule(router=ROUTER, held=st.booleans())
    def database(self, router: int, held: bool) -> None:
        """Withhold the results of a router's transactions, or deliver them."""
        threads = self.world.members[router].threads
        if held:
            threads.held = True
        else:
            threads.release()
        self.world.settle()

    @rule(router=ROUTER)
    def registry_away(self, router: int) -> None:
        """The registry cannot be reached by a router, until `database` delivers its results."""
        threads = self.world.members[router].threads
        if not threads.held:
            threads.fault = sa.exc.OperationalError("any", None, Exception("away"))

    @rule(router=ROUTER, model=MODEL)
    def lose_without_registry(self, router: int, model: str) -> None:
        """The nodes lose a model while a router is cut off, which is then asked for it."""
        self.registry_away(router)
        for node in self.world.nodes.values():
            node.evict(model)
        self.world.request(router, model, stream=False, on_stale="retry")
        for call in list(self.world.calls):
            if call.member is self.world.members[router] and call.model == model:
                call.tell()
        self.world.settle()

    @rule(seconds=st.sampled_from([0.1, 3.0, 11.0, 21.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass: leases expire, and routers follow the registry."""
        self.world.settle(seconds)

    # Invariants

    @invariant()
    def counts_are_conserved(self) -> None:
        for member in self.world.members:
            outstanding = sum(call.member is member for call in self.world.calls)
            assert member.router.table.in_flight() == outstanding, "invariant 9"

    @invariant()
    def nothing_is_executed_twice(self) -> None:
        assert max(self.world.executed.values(), default=0) <= 1, "invariant 7"

    @invariant()
    def nothing_is_sent_again_after_the_first_message(self) -> None:
        for key, sent in self.world.first_message.items():
            assert self.world.sent[key] == sent, "invariant 8"

    @invariant()
    def a_generation_is_dropped_once(self) -> None:
        with self.world.members[0].registry.store.engine.connect() as conn:
            heals = rows.latest_heals(conn, 1000)
            dropped = [heal.generation for heal in heals if heal.action == "dropped"]
        assert len(dropped) == len(set(dropped)), "invariant 13"

    @invariant()
    def rows_are_unique_and_fit(self) -> None:
        for view in self.world.members[0].registry.look().nodes:
            assert view.node is not None
            names = [row.model for row in view.replicas]
            assert len(names) == len(set(names)), "invariant 2"
            assert len(names) <= view.node.slots, "invariant 2: more rows than slots"

    @invariant()
    def the_tables_hold_nothing_newer_than_the_registry(self) -> None:
        known = self.world.members[0].registry.rows()
        for member in self.world.members:
            for model in MODELS:
                for entry in member.router.table.replicas(model):
                    row = known.get((entry.node.name, model))
                    assert row is None or row.generation >= entry.generation

    def teardown(self) -> None:
        """When all faults stop, requests are answered, and every count returns to zero."""
        world = self.world
        try:
            for _, task in world.tasks.values():
                task.cancel()
            world.settle()
            world.check_liveness()
            for member in world.members:
                assert member.router.table.in_flight() == 0, "invariant 9: quiescent"
        finally:
            world.close()


def check(machine: type[Interleavings], examples: int, steps: int) -> None:
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # Shrinking takes minutes, and finds the same failure.
        phases=(Phase.generate,),
        derandomize=settings().derandomize,
    )
    run_state_machine_as_test(machine, settings=profile)


def test_a_few_interleavings_on_sqlite() -> None:
    check(Interleavings, examples=3, steps=40)


@pytest.mark.slow
def test_interleavings_on_sqlite() -> None:
    check(Interleavings, examples=12, steps=40)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_interleavings_on_sqlite() -> None:
    check(Interleavings, examples=200, steps=60)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_interleavings_on_postgres(postgres: Postgres) -> None:
    admin = sa.create_engine(
        sa.make_url(postgres.get_uri()).set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",
        poolclass=sa.NullPool,
    )
    numbers = itertools.count()

    class OnPostgres(Interleavings):
        @staticmethod
        def url() -> str:
            name = f"interleavings_{next(numbers)}"
            with admin.connect() as conn:
                conn.execute(sa.text(f"create database {name}"))
            return postgres.get_uri(name)

    check(OnPostgres, examples=10, steps=40)
    admin.dispose()
