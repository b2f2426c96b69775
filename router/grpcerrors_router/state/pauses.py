"""The quarantines, back-offs and other pauses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpcerrors_protocol import fleet_pb2 as pb

if TYPE_CHECKING:
    from grpcerrors_router.calls.causes import Causes
    from grpcerrors_router.loads.flights import Flights
    from grpcerrors_router.loads.quarantine import Quarantine
    from grpcerrors_router.view.table import RoutingTable


def pause_states(
    table: RoutingTable,
    quarantine: Quarantine,
    causes: Causes,
    flights: Flights,
    now: float,
    offset: float,
) -> list[pb.PauseState]:
    """Return the pauses; those that end first come first.

    `now` is on the monotonic clock, and `offset` is the registry's Unix seconds minus that clock.
    """
    found = [
        pb.PauseState(
            kind="quarantine",
            node=node,
            model=model,
            until=until + offset,
            why=f"it lost the model {drops} times without serving it in between",
        )
        for node, model, until, drops in quarantine.cases()
    ]
    for node in table.nodes.values():
        for job in node.loads.values():
            if job.backing_off(now):
                times = f" (failed {job.failures} times)" if job.failures > 1 else ""
                why = f"it failed to load the model: {job.message}{times}"
                found.append(
                    pb.PauseState(
                        kind="back-off",
                        node=node.name,
                        model=job.model,
                        until=job.retry_at + offset,
                        why=why,
                    )
                )
    for name, model, (method, code, wording), until in causes.doubts():
        what = f"{code} of {method}: {wording}" if method else wording
        why = f"a reload did not cure its error, which is no evidence for now ({what})"
        found.append(
            pb.PauseState(kind="doubt", node=name, model=model, until=until + offset, why=why)
        )
    for model, until in flights.pauses().items():
        why = "the last attempt to load it failed"
        found.append(pb.PauseState(kind="retry", model=model, until=until + offset, why=why))
    return sorted(found, key=lambda pause: pause.until)
