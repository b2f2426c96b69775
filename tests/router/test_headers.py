"""Which headers pass through the gateway, to the node and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router.gateway.headers import Headers
from grpcerrors_router.validation import Invalid, forwardable
from tests.router.support.rawnode import Script, Stack, stack

if TYPE_CHECKING:
    from pathlib import Path

SECRET = [
    ("authorization", "Bearer secret"),
    ("cookie", "secret"),
    ("proxy-authorization", "secret"),
]
CONTROL = [
    ("x-generation", "1"),
    ("x-boot-id", "b"),
    ("x-inventory-version", "9"),
    ("grpcerrors-unexecuted", "MODEL_NOT_LOADED"),
    ("grpcerrors-held", "1"),
    ("grpcerrors-made-up", "1"),
]
PLAIN = [("x-request-id", "7"), ("x-other", "a"), ("x-other", "b"), ("grpcerrors", "x")]


async def call_all(served: Stack) -> dict[str, list[tuple[str, Any]]]:
    """Call the node in every shape with all headers; return what it saw of them, by shape."""
    metadata = [("x-model-id", "m"), *PLAIN, *SECRET, *CONTROL, ("grpcerrors-hop", "other")]
    for shape in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
        body = iter([b""]) if shape.startswith("stream") else b""
        path = f"/backend.Backend/{'Predict' if shape == 'unary_unary' else shape}"
        call = getattr(served.through, shape)(path)(body, metadata=metadata)
        if shape.endswith("unary"):
            await call
        else:
            while await call.read() is not grpc.aio.EOF:
                pass
    return {
        seen.method: [pair for pair in seen.metadata if pair[0] != "user-agent"]
        for seen in served.node.seen
    }


async def test_a_node_gets_neither_the_callers_secrets_nor_its_control_headers(
    tmp_path: Path,
) -> None:
    async with stack(tmp_path) as served:
        for seen in (await call_all(served)).values():
            hops = [value for key, value in seen if key == "grpcerrors-hop"]
            assert hops[0] == "other", "a loop through another router must be seen"
            assert len(hops) == 2
            rest = [pair for pair in seen if pair[0] != "grpcerrors-hop"]
            assert sorted(rest) == sorted([("x-model-id", "m"), *PLAIN])
        assert len(served.node.seen) == 4


async def test_named_headers_are_forwarded_all_the_same(tmp_path: Path) -> None:
    headers = Headers(["cookie", "grpcerrors-made-up"])
    async with stack(tmp_path, headers=headers) as served:
        for seen in (await call_all(served)).values():
            keys = {key for key, _ in seen}
            assert {"cookie", "grpcerrors-made-up"} <= keys
            assert not keys & {"authorization", "proxy-authorization", "grpcerrors-held"}


async def test_a_node_cannot_speak_for_the_routers_address(tmp_path: Path) -> None:
    bad = [
        ("set-cookie", "a=b"),
        ("www-authenticate", "Basic"),
        ("alt-svc", 'h2="evil:443"'),
        ("x-generation", "1"),
        ("x-boot-id", "b"),
    ]
    good = [("x-plain", "1"), ("grpcerrors-held", "m")]
    async with stack(tmp_path) as served:
        stub = BackendStub(served.through)
        served.node.script = Script(initial=(*bad, good[0]), trailing=(*bad, *good))
        call = stub.Predict(pb.PredictOptions(), metadata=[("x-model-id", "m")])
        await call
        assert list(await call.initial_metadata()) == good[:1]
        assert list(await call.trailing_metadata()) == good
        stream = stub.PredictStream(pb.PredictOptions(), metadata=[("x-model-id", "m")])
        async for _ in stream:
            pass
        assert list(await stream.initial_metadata()) == good[:1]
        assert list(await stream.trailing_metadata()) == good
        served.node.script = Script(
            initial=(*bad, good[0]),
            trailing=(*bad, *good),
            replies=(),
            code=grpc.StatusCode.ABORTED,
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Predict(pb.PredictOptions(), metadata=[("x-model-id", "m")])
        assert list(caught.value.initial_metadata()) == good[:1]
        assert list(caught.value.trailing_metadata()) == good


names = st.one_of(
    st.sampled_from([key for key, _ in (*SECRET, *CONTROL, *PLAIN)]),
    st.text("abgr-_.1", min_size=1, max_size=20),
)


@given(st.lists(st.tuples(names, st.text())))
def test_no_secret_is_forwarded_and_all_else_is_in_order(pairs: list[tuple[str, str]]) -> None:
    dropped = {key for key, _ in (*SECRET, *CONTROL)} | {"user-agent"}
    kept = [
        pair
        for pair in pairs
        if pair[0] not in dropped
        and (not pair[0].startswith("grpcerrors-") or pair[0] == "grpcerrors-hop")
    ]
    assert Headers().onward(pairs) == kept


def test_only_headers_that_gRPC_carries_and_the_router_does_not_set_can_be_named() -> None:
    assert forwardable("Cookie") == "cookie"
    for name in ("", "a b", "grpc-timeout", "te", ":path", "é", "a\nb"):
        with pytest.raises(Invalid, match="gRPC cannot carry a header of this name"):
            forwardable(name)
    for name in ("x-model-id", "X-Generation", "user-agent", "grpcerrors-hop"):
        with pytest.raises(Invalid, match="the router sets this header itself"):
            forwardable(name)
