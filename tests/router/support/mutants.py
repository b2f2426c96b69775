"""Mutants: ways to break the router, each with the test that must fail."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A change of one place: `old` occurs exactly once in `file`; with `new`, `test` fails.

    `dies_of` is part of the assertion that fails, or of its message.
    """

    name: str
    file: str
    old: str
    new: str
    test: str
    dies_of: str


MUTANTS = (
    Mutant(
        "no generation compare",
        "registry/registry.py",
        "if generation is not None:\n                where",
        "if False:\n                where",
        "test_registry_jobs.py::test_a_drop_names_a_generation[sqlite]",
        'remove_node_model("a", "m", old.generation)',
    ),
    Mutant(
        "drop before compare",
        "view/table.py",
        "        if not entry.live:\n            return False\n        self._dropped",
        "        self._dropped",
        "test_healing.py::test_a_late_error_never_removes_a_later_generation[sqlite]",
        'events.count("late_error") == 1',
    ),
    Mutant(
        "no fencing",
        "registry/jobs.py",
        "        loads.c.generation == load.generation,\n",
        "",
        "test_registry_jobs.py::test_a_stale_token_changes_nothing[sqlite]",
        "assert not await registry.renew_load(stalled, 10)",
    ),
    Mutant(
        "double decrement",
        "calls/dispatch.py",
        "        if self._released:\n            return\n        self._released = True\n",
        "        self._released = True\n",
        "test_tracking.py::test_a_cancelled_call_is_counted_out[Predict]",
        "assert entry.in_flight == 0",
    ),
    Mutant(
        "double decrement, found by interleavings",
        "calls/dispatch.py",
        "        if self._released:\n            return\n        self._released = True\n",
        "        self._released = True\n",
        "test_invariants.py::test_interleavings_on_sqlite",
        "invariant 9",
    ),
    Mutant(
        "replay after the first message",
        "calls/retry.py",
        "                await self._reconcile(error, self._attempt)\n"
        "            raise error from None",
        "                await self._reconcile(error, self._attempt)\n"
        "            return await self.answer()",
        "test_healing.py::test_nothing_is_replayed_after_the_first_message[1]",
        "invariant 8",
    ),
    Mutant(
        "replay of what has started",
        "calls/reconcile.py",
        "Reaction.STALE if verdict.unexecuted else Reaction.STALE_UNPROVEN",
        "Reaction.STALE",
        "test_healing.py::test_what_has_started_is_never_replayed",
        "invariant 7",
    ),
    Mutant(
        "the second stale error instead of the original",
        "calls/retry.py",
        "if unexecuted and original is not None:",
        "if False:",
        "test_healing.py::test_four_attempts_then_the_original_error[4]",
        "the first error, from the last",
    ),
    Mutant(
        "no single flight over routers",
        "registry/jobs.py",
        "return len(there) + len(coming) >= request.wanted",
        "return False",
        "test_registry_jobs.py::test_no_more_loads_than_wanted[sqlite]",
        "isinstance(claim, Load) for claim in claims) == 2",
    ),
    Mutant(
        "slots overbooked",
        "registry/jobs.py",
        "return slots is not None and len(taken) < slots",
        "return slots is not None",
        "test_registry_jobs.py::test_slots_are_never_overbooked[sqlite]",
        "== [False, True]",
    ),
    Mutant(
        "evict without asking the other routers",
        "loads/eviction.py",
        "if all(router.seen_revision >= job.generation for router in others):",
        "if True:",
        "test_routers.py::test_what_another_router_uses_is_not_evicted[sqlite]",
        "invariant 10: freed while another router used it",
    ),
    Mutant(
        "evict what is in use here",
        "loads/placement.py",
        "and (not replica.in_flight or (drain and replica.spared_until <= now))",
        "",
        "test_placement.py::test_a_replica_in_use_is_no_victim",
        "invariant 10: the replica is in use",
    ),
    Mutant(
        "a dead router's victim is gone before its node was asked",
        "registry/jobs.py",
        "loads.c.asked, loads.c.node.in_(foreign)",
        'loads.c.victim != "", loads.c.node.in_(foreign)',
        "test_registry_jobs.py::"
        "test_a_victim_that_a_foreign_node_was_not_asked_to_unload_stays[sqlite-m1]",
        "isinstance(await registry.claim_load(request(model=model)), Load)",
    ),
    Mutant(
        "an eviction outlives its router",
        "view/table.py",
        "victim.evicting_until = node.loads[load.model].lease_until",
        'victim.evicting_until = float("inf")',
        "test_placement.py::test_an_eviction_ends_with_its_lease_without_any_news",
        "invariant 17: the lease has run out",
    ),
    Mutant(
        "old news disproves",
        "registry/membership.py",
        "elif beat.inventory_version < node.inventory:",
        "elif False:",
        "test_registry_nodes.py::test_a_heartbeat_older_than_the_load_disproves_nothing[sqlite]",
        'assert await registry.heartbeat(beat("b1", 1)) == Correction()',
    ),
    Mutant(
        "a past boot is believed",
        "registry/membership.py",
        "        if not moved and _is_past(conn, beat):\n            return Correction()\n",
        "        conn.execute(sa.delete(boots))\n",
        "test_registry_nodes.py::test_a_new_boot_invalidates_the_rows_of_the_old_one_for_good[sqlite]",
        'assert await registry.heartbeat(beat("b1", 6, Held("m", 7))) == Correction()',
    ),
    Mutant(
        "adopt what is being loaded",
        "registry/membership.py",
        "if name not in running]",
        "]",
        "test_registry_nodes.py::test_a_heartbeat_does_not_adopt_what_is_just_being_loaded[sqlite]",
        "assert await rows(registry) == {}",
    ),
    Mutant(
        "silence deletes",
        "nodes/prober.py",
        "self._table.set_state(node, reachable=there, busy=True)",
        "[self._table.drop(replica) for replica in list(node.replicas.values())]",
        "test_loading.py::test_a_node_that_dies_is_not_picked_and_its_rows_stay",
        "invariant 14: silence deletes nothing",
    ),
    Mutant(
        "a bare code is believed",
        "calls/reconcile.py",
        "if not verdict.typed and entry.live:",
        "if False:",
        "test_evidence.py::test_a_poisoned_request_asks_once[no antispoof]",
        'assert router.table.pick("m") is not None',
    ),
    Mutant(
        "a busy node is taken for one without the model",
        "calls/reconcile.py",
        "self._events.unconfirmed(model, node.name)\n            return False",
        "self._events.unconfirmed(model, node.name)\n            return True",
        "test_evidence.py::test_no_answer_is_no_evidence[no antispoof]",
        'assert events.count("heal") == 0',
    ),
    Mutant(
        "a cause that no reload cures is believed again and again",
        "calls/causes.py",
        "if not returned:",
        "if True:",
        "test_evidence.py::test_a_false_alarm_of_a_node_without_status_costs_one_reload"
        "[no antispoof]",
        "assert len(node.loads) == 2",
    ),
    Mutant(
        "a foreign node that restarted is used as if nothing had happened",
        "calls/dispatch.py",
        "return entry.connection == self._connection(entry)",
        "return True",
        "test_probing.py::test_a_foreign_node_that_restarted_is_asked_before_it_is_used[True]",
        "assert len(node.loads) == loads",
    ),
    Mutant(
        "the table goes back",
        "view/table.py",
        "        if view.revision < known:\n            return False\n",
        "",
        "test_registry.py::test_the_table_never_goes_back",
        "assert not table.apply(NodeView(5",
    ),
    Mutant(
        "a drop is forgotten while the registry is away",
        "view/table.py",
        "if dropped is not None and row.generation <= dropped.generation:",
        "if False:",
        "test_registry.py::test_the_table_never_goes_back",
        'assert table.pick("m") is None',
    ),
    Mutant(
        "no bound on replays",
        "calls/replay.py",
        "full = self._bytes + size > self._max_bytes or len",
        "full = len",
        "test_healing.py::test_a_stream_beyond_the_replay_buffer_is_not_replayed",
        "more than the buffer holds is not replayed",
    ),
    Mutant(
        "no retry budget",
        "calls/budget.py",
        "if sum(self._retries) >= self._allowed():",
        "if False:",
        "test_healing.py::test_the_retry_budget_bounds_what_is_sent_again",
        'assert events.count("retry") == 3',
    ),
    Mutant(
        "no quarantine",
        "loads/quarantine.py",
        "if over >= 0:",
        "if False:",
        "test_healing.py::test_a_node_that_always_loses_the_model_is_left_alone",
        "invariant 11",
    ),
    Mutant(
        "changes are lost while the registry is away",
        "view/outbox.py",
        '            self._wait(what, change)\n            self.note_down(error, "write")',
        '            self.note_down(error, "write")',
        "test_routers.py::test_warm_traffic_outlives_the_registry_and_changes_are_applied_after",
        "assert len(router.outbox) >= 1",
    ),
    Mutant(
        "the load dies with its caller",
        "loads/flights.py",
        "                up.cancel()\n",
        "                up.cancel()\n                for load in self._loads:\n"
        "                    load.cancel()\n",
        "test_loading.py::test_a_load_outlives_the_caller_who_started_it",
        "the load outlives its caller",
    ),
)
