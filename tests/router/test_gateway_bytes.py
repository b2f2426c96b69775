"""Calls through the gateway look the same to both ends as calls without it."""

from __future__ import annotations

import asyncio
import contextlib
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grpcerrors_protocol.metadata import HOP
from grpcerrors_router.nodes.channels import MESSAGE_LIMIT
from tests.router.support.rawnode import Pairs, RawNode, Script, stack

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.text(string.ascii_lowercase + string.digits + "_.-", min_size=1, max_size=12)
TEXTS = st.text(string.printable[:94], max_size=20)
PAIRS: st.SearchStrategy[Pairs] = st.lists(
    st.tuples(NAMES.map(lambda name: f"k-{name}k"), TEXTS)
    | st.tuples(NAMES.map(lambda name: f"k-{name}-bin"), st.binary(max_size=20)),
    max_size=5,
).map(tuple)
MESSAGES = st.lists(st.binary(max_size=100), max_size=4).map(tuple)
ERRORS = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
SCRIPTS = st.builds(
    Script,
    initial=PAIRS,
    replies=MESSAGES,
    code=st.sampled_from([grpc.StatusCode.OK, *ERRORS]),
    details=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    trailing=st.builds(
        lambda pairs, details: (*pairs, *(("grpc-status-details-bin", each) for each in details)),
        PAIRS,
        st.lists(st.binary(max_size=20), max_size=2),
    ),
)
METHODS = st.sampled_from(["/other.Service/Anything", "/backend.Backend/AudioTranscriptionLive"])
UNARY = st.sampled_from(["/backend.Backend/Predict", "/backend.Backend/TTS"])


OF_THE_GATEWAY = {"user-agent", HOP}


@dataclass
class View:
    """What both ends of a call saw."""

    initial: Pairs
    replies: list[bytes]
    code: grpc.StatusCode
    details: str
    trailing: Pairs
    method: str
    metadata: Pairs
    requests: list[bytes]


async def observe(channel: Any, node: RawNode, method: str, md: Pairs, requests: Any) -> View:
    before = len(node.seen)
    replies: list[bytes] = []
    call = channel.stream_stream(method)(iter(requests), metadata=(*md, ("x-model-id", "m")))
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for message in call:
            replies.append(message)  # noqa: PERF401 - those before an error count
    (seen,) = node.seen[before:]
    return View(
        _ordered(await call.initial_metadata()),
        replies,
        await call.code(),
        await call.details(),
        _ordered(await call.trailing_metadata()),
        seen.method,
        _ordered(pair for pair in seen.metadata if pair[0] not in OF_THE_GATEWAY),
        seen.requests,
    )


def _ordered(pairs: Any) -> Pairs:
    # gRPC keeps the order of the values of a key, but not the order of the keys.
    return tuple(sorted(map(tuple, pairs), key=lambda pair: pair[0]))


@pytest.fixture(scope="module")
def loop() -> Any:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture(scope="module")
def served(loop: asyncio.AbstractEventLoop, tmp_path_factory: Any) -> Any:
    folder: Path = tmp_path_factory.mktemp("bytes")
    manager = stack(folder)
    asyncio.set_event_loop(loop)
    yield loop.run_until_complete(manager.__aenter__())
    loop.run_until_complete(manager.__aexit__(None, None, None))


@given(method=METHODS, script=SCRIPTS, metadata=PAIRS, requests=MESSAGES)
@example(
    method="/other.Service/Anything",
    script=Script(
        initial=(("k-k", "1"), ("k-k", "2")),
        replies=(),
        code=grpc.StatusCode.FAILED_PRECONDITION,
        details="raw: is busy\n% é",
        trailing=(("k-bin", b"\x00\xff"), ("grpc-status-details-bin", b"\xff")),
    ),
    metadata=(("k-k", "a"), ("k-k", "b")),
    requests=(),
)
def test_streams(
    served: Any, loop: Any, method: str, script: Script, metadata: Pairs, requests: Any
) -> None:
    served.node.script = script
    views = [
        loop.run_until_complete(observe(channel, served.node, method, metadata, requests))
        for channel in (served.direct, served.through)
    ]
    assert views[0] == views[1]


@given(method=UNARY, script=SCRIPTS, metadata=PAIRS, request=st.binary(max_size=100))
def test_unary_methods_of_the_protocol(
    served: Any, loop: Any, method: str, script: Script, metadata: Pairs, request: bytes
) -> None:
    if script.code is grpc.StatusCode.OK:
        script.replies = (*script.replies, b"the one")[:1]
    else:
        script.replies = ()
    served.node.script = script
    views = [
        loop.run_until_complete(observe(channel, served.node, method, metadata, [request]))
        for channel in (served.direct, served.through)
    ]
    assert views[0] == views[1]


@given(script=SCRIPTS, metadata=PAIRS, request=st.binary(max_size=100))
def test_server_streaming_methods_of_the_protocol(
    served: Any, loop: Any, script: Script, metadata: Pairs, request: bytes
) -> None:
    served.node.script = script
    method = "/backend.Backend/PredictStream"
    views = [
        loop.run_until_complete(observe(channel, served.node, method, metadata, [request]))
        for channel in (served.direct, served.through)
    ]
    assert views[0] == views[1]


@pytest.mark.parametrize("method", ["/backend.Backend/Predict", "/other.Service/Anything"])
def test_a_message_of_nearly_50_mib_passes_both_ways(served: Any, loop: Any, method: str) -> None:
    big = bytes(MESSAGE_LIMIT - 1024)
    served.node.script = Script(replies=(big,))
    view = loop.run_until_complete(observe(served.through, served.node, method, (), [big]))
    assert view.requests == [big]
    assert view.replies == [big]


def test_trailers_beyond_the_default_limit_pass(served: Any, loop: Any) -> None:
    served.node.script = Script(
        replies=(), code=grpc.StatusCode.ABORTED, details="x", trailing=(("k-bin", bytes(20_000)),)
    )
    method = "/backend.Backend/Predict"
    view = loop.run_until_complete(observe(served.through, served.node, method, (), [b""]))
    assert view.code is grpc.StatusCode.ABORTED
    assert view.trailing == (("k-bin", bytes(20_000)),)
