"""The loads that run or wait, and who waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpcerrors_protocol import fleet_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from grpcerrors_router.entities import ModelSpec
    from grpcerrors_router.loads.flights import Flights
    from grpcerrors_router.state.nodes import Moment
    from grpcerrors_router.view.table import RoutingTable


def load_states(
    table: RoutingTable,
    flights: Flights,
    models: Mapping[str, ModelSpec],
    router: str,
    moment: Moment,
) -> list[pb.LoadState]:
    """Return the loads that run, and the flights of `router` that wait, oldest first."""
    found = [*_running(table, models, moment), *_loading_by_others(table, moment)]
    under_way = {load.model for load in found}
    for model, flight in flights.flights.items():
        if model not in under_way and not flight.loads:
            found.append(
                pb.LoadState(
                    model=model,
                    since=moment.unix(flight.since),
                    owner=router,
                    why=flight.waits or "it looks for a node",
                )
            )
    waiting = flights.waiting()
    for load in found:
        count, since = waiting.get(load.model, (0, 0.0))
        load.waiting, load.waiting_since = count, moment.unix(since)
        load.usual_seconds = flights.usual(load.model)
    return sorted(found, key=lambda load: load.since)


def _running(
    table: RoutingTable, models: Mapping[str, ModelSpec], moment: Moment
) -> Iterator[pb.LoadState]:
    jobs = [
        job
        for node in table.nodes.values()
        for job in node.loads.values()
        if job.running(moment.now) and job.victim != job.model
    ]
    coming: dict[str, int] = {}
    for job in sorted(jobs, key=lambda job: job.generation):
        spec = models.get(job.model)
        before = coming.setdefault(job.model, table.live_count(job.model))
        coming[job.model] += 1
        yield pb.LoadState(
            model=job.model,
            node=job.node,
            generation=job.generation,
            since=moment.unix(job.started_at),
            owner=job.owner,
            hedge=before >= (spec.replicas if spec is not None else 1),
            victim=job.victim,
        )


def _loading_by_others(table: RoutingTable, moment: Moment) -> Iterator[pb.LoadState]:
    for node in table.nodes.values():
        for entry in node.replicas.values():
            if entry.loading_until:
                yield pb.LoadState(
                    model=entry.model,
                    node=node.name,
                    generation=entry.generation,
                    since=moment.unix(entry.loading_since),
                    why="the node says that it is loading the model, for someone else",
                )
