"""The id of a request, where something is logged about it."""

from __future__ import annotations

import structlog.testing

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from tests.router.conftest import Recorder, fleet
from tests.router.support.nodes import REQUEST_ID, Node


async def healed(url: str, node: Node, *sent: str) -> str:
    """Return the id of the request that met a stale replica, in the event of the heal."""
    events = Recorder()
    async with fleet(url, node, events=events) as (router,):
        stub = BackendStub(router.channel("m"))
        await stub.Predict(pb.PredictOptions())
        node.evict("m")
        with structlog.testing.capture_logs() as lines:
            await stub.Predict(
                pb.PredictOptions(), metadata=tuple((REQUEST_ID, each) for each in sent)
            )
    ((*_, id_),) = [args for name, args in events.seen if name == "heal"]
    (line,) = [line for line in lines if line["event"] == "dropped a stale replica"]
    assert line["request_id"] == id_
    assert line["node"] == node.name
    assert line["model"] == "m"
    assert line["generation"]
    return str(id_)


async def test_a_heal_shows_the_callers_id(sqlite_url: str) -> None:
    assert await healed(sqlite_url, Node(), "order-7") == "order-7"


async def test_a_request_without_an_id_gets_one_when_it_is_logged(sqlite_url: str) -> None:
    node = Node()
    id_ = await healed(sqlite_url, node)
    assert len(id_) == 16
    # Warm requests and the first attempt carry none; the retry carries it to the node.
    assert node.seen[""] == 2
    assert node.executed[id_] == 1


async def test_an_id_that_is_not_sane_is_replaced(sqlite_url: str) -> None:
    assert len(await healed(sqlite_url, Node(), "two words")) == 16
