"""What is wrong in a fleet, in sentences: what, where, since when, and what to do about it.

Every problem is derived from the fleet's state alone, so the page, `status` and tests agree. A
sentence contains no number that changes while the problem stays the same, since the page reads new
sentences out.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from grpcerrors_protocol.fleet_pb2 import FleetState, Problem
from grpcerrors_router.state.words import (
    ERROR,
    EVIDENCE,
    LOST,
    LOST_BY,
    NOTE,
    REFUSALS,
    WARNING,
    because,
    end,
    number,
    seconds_as_text,
    some,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from grpcerrors_protocol.fleet_pb2 import Heal, LoadState, NodeState, PauseState, RefusalState

RECENT = 60.0
"""Seconds for which a refusal or a heal is a problem."""

OFTEN = 3
"""Heals of one model on one node within RECENT that are too many."""

PATIENCE = 3.0
"""Seconds that a load may take, or wait for a slot, before it is a problem."""

SHOWN = 5
"""Problems of one kind that are listed; if there are more, one sentence counts them."""

_ORDER = {ERROR: 0, WARNING: 1, NOTE: 2}


def problems(fleet: FleetState) -> list[Problem]:
    """Return the problems of a fleet, the worst first."""
    found = [
        *_registry(fleet),
        *_nodes(fleet),
        *_loads(fleet),
        *_pauses(fleet),
        *_missing_backends(fleet),
    ]
    offered = {node.backend for node in fleet.nodes}
    explained = {model.model for model in fleet.models if model.backend not in offered}
    explained |= {problem.model for problem in found if problem.severity != NOTE}
    found += _refusals(fleet, explained)
    found += _heals(fleet)
    found.sort(key=lambda each: (_ORDER[each.severity], each.kind, each.since, each.node))
    return list(_folded(found))


def summary(fleet: FleetState) -> str:
    """Return one line that says whether all is well, from `fleet.problems`."""
    count = {
        severity: sum(max(1, p.count) for p in fleet.problems if p.severity == severity)
        for severity in _ORDER
    }
    real = count[ERROR] + count[WARNING]
    head = number(real, "problem") if real else "All is well"
    if count[NOTE]:
        head += f"{' and' if real else ','} {number(count[NOTE], 'note')}"
    held = sum(1 for model in fleet.models if model.present)
    return (
        f"{head}. {number(len(fleet.nodes), 'node')}, {number(held, 'model')} loaded, "
        f"{number(fleet.in_flight, 'call')} in flight"
    )


def _registry(fleet: FleetState) -> Iterator[Problem]:
    registry = fleet.registry
    if not registry.up:
        yield Problem(
            severity=ERROR,
            kind="registry-down",
            since=registry.since,
            what=f"The registry ({registry.kind or 'database'}) cannot be read or written"
            f"{because(registry.error)}. Loaded models are served from memory; loads and "
            "evictions wait.",
            cure="Start the database, or fix the network or the full disk. The router reconnects "
            "by itself, and writes the changes that wait.",
        )


def _nodes(fleet: FleetState) -> Iterator[Problem]:
    if not fleet.nodes:
        yield Problem(
            severity=WARNING,
            kind="no-nodes",
            what="No node has registered, so no model can be loaded.",
            cure="Start one: grpcerrors-backend BACKEND --router HOST:PORT; or add one that does "
            "not register: grpcerrors-router add-node HOST:PORT --backend TYPE",
        )
    for node in fleet.nodes:
        if node.state in _NODE:
            yield _NODE[node.state](node)


def _down(node: NodeState) -> Problem:
    how = "sends no heartbeats" if node.state == "silent" else "accepts no connection"
    held = [replica.model for replica in node.replicas]
    holds = f" It holds {some(held)}; requests are served elsewhere if they can." if held else ""
    return Problem(
        severity=ERROR,
        kind="node-down",
        node=node.name,
        model=held[0] if len(held) == 1 else "",
        since=node.since,
        what=f"Node {node.name} ({node.address}) {how}.{holds}",
        cure="Check whether its process runs: start it if it has ended, restart it if it is "
        "stopped or hangs, else check the network. The node returns by itself. If it is gone for "
        f"good: grpcerrors-router remove-node {node.name}",
    )


def _busy(node: NodeState) -> Problem:
    return Problem(
        severity=WARNING,
        kind="node-busy",
        node=node.name,
        since=node.since,
        what=f"Node {node.name} accepts connections, but does not answer. It is picked last.",
        cure="Nothing, if it is computing: its threads or its event loop are busy. If it stays so, "
        "give the backend more workers, or restart it.",
    )


def _refusing(node: NodeState) -> Problem:
    return Problem(
        severity=ERROR,
        kind="node-refuses",
        node=node.name,
        since=node.since,
        what=f"Node {node.name} ({node.address}) refuses the router{because(node.why)}. It is not "
        "used meanwhile; its replicas are kept.",
        cure="Give the router the token that the node asks for. The node returns by itself.",
    )


def _draining(node: NodeState) -> Problem:
    return Problem(
        severity=NOTE,
        kind="node-draining",
        node=node.name,
        since=node.since,
        what=f"Node {node.name} is drained: it gets no new requests and no loads.",
        cure="When its maintenance is over, end it.",
        actions=["undrain"],
    )


_NODE: dict[str, Callable[[NodeState], Problem]] = {
    "unreachable": _down,
    "silent": _down,
    "busy": _busy,
    "refusing": _refusing,
    "draining": _draining,
}


def _loads(fleet: FleetState) -> Iterator[Problem]:
    down = {node.name for node in fleet.nodes if node.state in ("unreachable", "silent")}
    for load in fleet.loads:
        waits = not load.node
        limit = PATIENCE if waits else max(PATIENCE, 2 * load.usual_seconds)
        if fleet.now - load.since < limit or load.node in down or (waits and not load.waiting):
            continue
        yield _waits(load) if waits else _hangs(load)


def _waits(load: LoadState) -> Problem:
    return Problem(
        severity=ERROR,
        kind="no-capacity",
        model=load.model,
        since=load.waiting_since or load.since,
        what=f"Requests for {load.model} wait, and it cannot be loaded yet"
        f"{because(load.why or 'it waits for a slot')}.",
        cure="Add a node or slots (grpcerrors-backend --slots), or unload a model that is not "
        "needed.",
    )


def _hangs(load: LoadState) -> Problem:
    usual = (
        f"its last load took {seconds_as_text(load.usual_seconds)}"
        if load.usual_seconds
        else "no earlier load to compare with is known"
    )
    who = "" if load.owner else ", for another client than a router"
    return Problem(
        severity=WARNING,
        kind="load-hangs",
        node=load.node,
        model=load.model,
        since=load.since,
        what=f"Node {load.node} has been loading {load.model} for long{who}; {usual}."
        f"{' Requests wait for it.' if load.waiting else ''}",
        cure="Wait, if the model is large. If the load hangs, read the node's log and restart the "
        "node; the router loads the model on another node of the same backend if there is one.",
    )


def _pauses(fleet: FleetState) -> Iterator[Problem]:
    failed: dict[tuple[str, str], list[PauseState]] = defaultdict(list)
    for pause in fleet.pauses:
        if pause.kind == "quarantine":
            yield _quarantine(pause)
        elif pause.kind == "back-off":
            failed[pause.model, pause.why].append(pause)
        elif pause.kind == "doubt":
            yield _doubt(pause)
    for pauses in failed.values():
        yield _failing(pauses)


def _quarantine(pause: PauseState) -> Problem:
    return Problem(
        severity=ERROR,
        kind="quarantine",
        node=pause.node,
        model=pause.model,
        until=pause.until,
        what=f"Node {pause.node} keeps losing {pause.model}, so the model is not loaded there for "
        "a while, longer each time.",
        cure="The node has too little memory, or another client unloads the model there: give it "
        "more memory or fewer slots, or drain it. Then forgive, to try at once.",
        actions=["forgive", "drain"],
    )


def _failing(pauses: list[PauseState]) -> Problem:
    model, nodes = pauses[0].model, [pause.node for pause in pauses]
    return Problem(
        severity=ERROR,
        kind="load-fails",
        node=nodes[0] if len(nodes) == 1 else "",
        model=model,
        until=min(pause.until for pause in pauses),
        what=f"{model} cannot be loaded on {some(nodes)}{because(pauses[0].why)}.",
        cure="Fix what the message says, in models.toml or on the node. The router tries again at "
        "growing intervals; forgive, to try at once.",
        actions=["forgive"],
    )


def _doubt(pause: PauseState) -> Problem:
    return Problem(
        severity=NOTE,
        kind="doubt",
        node=pause.node,
        model=pause.model,
        until=pause.until,
        what=f"Node {pause.node} answers requests for {pause.model} with an error that looks like "
        f"a lost model, but a reload did not cure it{because(pause.why)}. So it is not believed.",
        cure="Nothing, or add a ModelGuard to the backend: it uses these words for something else.",
        actions=["forgive"],
    )


def _missing_backends(fleet: FleetState) -> Iterator[Problem]:
    if not fleet.nodes:
        return
    offered = {node.backend for node in fleet.nodes}
    lacking: dict[str, list[str]] = defaultdict(list)
    for model in fleet.models:
        if model.listed and model.backend not in offered:
            lacking[model.backend].append(model.model)
    recent = {refusal.model for refusal in _recent(fleet)}
    for backend, models in lacking.items():
        yield Problem(
            severity=WARNING if recent.isdisjoint(models) else ERROR,
            kind="no-capacity",
            model=models[0] if len(models) == 1 else "",
            what=f'No node offers backend "{backend}", so {some(models)} cannot be loaded.',
            cure="Start a node: grpcerrors-backend BACKEND --router HOST:PORT; or correct the "
            "backend in models.toml.",
        )


def _recent(fleet: FleetState) -> Iterator[RefusalState]:
    return (each for each in fleet.refusals if fleet.now - each.last < RECENT)


def _refusals(fleet: FleetState, explained: set[str]) -> Iterator[Problem]:
    """Return the problems that refusals show, unless the model's problem is `explained`."""
    known = {node.name for node in fleet.nodes}
    for refusal in _recent(fleet):
        if refusal.reason not in REFUSALS:
            continue
        kind, severity, cure = REFUSALS[refusal.reason]
        if refusal.reason == "RESOURCE_EXHAUSTED" and refusal.node not in known:
            continue
        about_model = refusal.reason in ("NO_CAPACITY", "LOAD_FAILED", "LOAD_TIMEOUT")
        if about_model and refusal.model in explained:
            continue
        if refusal.reason == "RESOURCE_EXHAUSTED":
            what = (
                f"Node {refusal.node} refuses requests for {refusal.model}: it has as many as it "
                f"takes{because(refusal.text)}."
            )
        else:
            said = refusal.text.partition("; give ")[0]  # what to do follows
            what = f"{said[:1].upper()}{end(said[1:])}."
        yield Problem(
            severity=severity,
            kind=kind,
            node=refusal.node,
            model=refusal.model,
            since=refusal.since,
            what=what,
            cure=cure,
        )


def _heals(fleet: FleetState) -> Iterator[Problem]:
    """Return one problem for each model that a node lost, unless the node is down or gone."""
    there = {node.name for node in fleet.nodes if node.state not in ("unreachable", "silent")}
    lost: dict[tuple[str, str], list[Heal]] = defaultdict(list)
    for heal in fleet.heals:
        if fleet.now - heal.at < RECENT and heal.action != "kept" and heal.node in there:
            lost[heal.node, heal.model].append(heal)
    for (node, model), heals in lost.items():
        evidence = heals[0].evidence
        often = len(heals) >= OFTEN
        yield Problem(
            severity=WARNING if often else NOTE,
            kind="lost-model",
            node=node,
            model=model,
            since=heals[-1].at,
            what=f"{model} was gone from node {node}{', again and again' if often else ''} "
            f"(evidence: {EVIDENCE.get(evidence, evidence)}).",
            cure=LOST_BY.get(evidence, LOST),
            actions=["drain"] if often else [],
        )


def _folded(found: Iterable[Problem]) -> Iterator[Problem]:
    """Count the problems of a kind in one sentence if there are more than SHOWN of them."""
    kinds: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in found:
        kinds[problem.severity, problem.kind].append(problem)
    for same in kinds.values():
        yield from same[:SHOWN]
        rest = same[SHOWN:]
        if rest:
            where = some([f"{each.model} {each.node}".strip() for each in rest])
            first = rest[0].node
            yield Problem(
                severity=rest[0].severity,
                kind=rest[0].kind,
                since=min(each.since for each in rest),
                what=f"The same concerns {where}.",
                cure=rest[0].cure.replace(f" {first}", " NAME") if first else rest[0].cure,
                count=len(rest),
            )
