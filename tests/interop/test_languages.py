"""Go and Node against the same vectors: they decode our errors, and we detect theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from grpcerrors import Evidence, classify, is_model_not_loaded
from tests.interop.support import errors, peers, vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.interop

NOT_LOADED, MISMATCH = "MODEL_NOT_LOADED", "MODEL_MISMATCH"
# What servers without the contract say in their own language: the rows of native/.
NATIVE = {
    "words": (NOT_LOADED, Evidence.TEXT),
    "plain": (NOT_LOADED, Evidence.TEXT),
    "wrapped": (NOT_LOADED, Evidence.TEXT),
    "code": (NOT_LOADED, Evidence.CODE),
    "mismatch": (MISMATCH, Evidence.TEXT),
    "quoted": (None, None),
    "foreign": (None, None),
    "other": (None, None),
}
BUILT_ANYWHERE = [name for name, row in vectors.BUILD.items() if not vectors.is_cut(row)]


@pytest.fixture(scope="module", params=[peers.go, peers.node], ids=["go", "node"])
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> peers.Peer:
    built: peers.Peer = request.param(tmp_path_factory.mktemp("peer"))
    return built


@pytest.fixture(scope="module")
def address(peer: peers.Peer) -> Iterator[str]:
    with peer.serving() as address:
        yield address


@pytest.fixture(scope="module")
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address) as channel:
        yield channel


@pytest.fixture(scope="module")
def seen(peer: peers.Peer) -> dict[tuple[str, str], Any]:
    with errors.serving() as address:
        return peer.ask(address)


def verdict(error: object) -> tuple[str | None, str | None]:
    found = classify(error)
    reason = found.condition.reason if found.condition else None
    return reason, found.evidence.value if found.evidence else None


def messages(shape: str) -> int:
    return 1 if shape in {"ServerStream", "Bidi"} else 0


@pytest.mark.parametrize("shape", errors.SHAPES)
@pytest.mark.parametrize("name", vectors.BUILD)
def test_a_peer_decodes_what_we_send(seen: Any, name: str, shape: str) -> None:
    row, sighting = vectors.BUILD[name], seen[f"build/{name}", shape]
    _, info = vectors.error_info(row["details_hex"])
    assert sighting["code"] == row["code"]
    assert sighting["message"] == row["message"]
    assert sighting["details_hex"] == row["details_hex"]
    (decoded,) = sighting["infos"]
    assert (decoded["reason"], decoded["domain"]) == (row["condition"], "grpcerrors")
    assert decoded.get("metadata", {}) == dict(info.metadata)
    assert sighting["received"] == messages(shape)


def check_built(answer: errors.Answer, name: str) -> None:
    row = vectors.BUILD[name]
    (details,) = answer.details
    assert vectors.error_info(details.hex()) == vectors.error_info(row["details_hex"])
    assert answer.error.code() is vectors.CODES[row["code"]]
    assert answer.error.details() == row["message"]
    verdict = classify(answer.error)
    assert verdict.condition is vectors.CONDITIONS[row["condition"]]
    assert verdict.evidence is Evidence.DETAILS
    assert verdict.backend == row["fields"]["backend"]
    assert verdict.started == row["started"]
    given = {name: value for name, value in row["fields"].items() if value}
    assert {name: verdict.fields[name] for name in verdict.fields if name != "started"} == given


@pytest.mark.parametrize("shape", errors.SHAPES)
@pytest.mark.parametrize("name", BUILT_ANYWHERE)
def test_we_detect_what_a_peer_builds(channel: grpc.Channel, name: str, shape: str) -> None:
    answer = errors.call(channel, shape, f"build/{name}")
    check_built(answer, name)
    assert answer.received == messages(shape)


@pytest.mark.parametrize("shape", errors.SHAPES)
async def test_we_detect_on_an_aio_channel_what_a_peer_builds(address: str, shape: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        for name in BUILT_ANYWHERE:
            answer = await errors.call_aio(channel, shape, f"build/{name}")
            check_built(answer, name)
            assert answer.received == messages(shape)


@pytest.mark.parametrize("name", vectors.BUILD)
def test_details_pass_byte_for_byte(channel: grpc.Channel, name: str) -> None:
    row = vectors.BUILD[name]
    answer = errors.call(channel, "Unary", f"exact/{name}")
    assert [value.hex() for value in answer.details] == [row["details_hex"]]
    assert answer.error.details() == row["message"]
    assert verdict(answer.error) == (row["condition"], "details")


@pytest.mark.parametrize("name", vectors.DETECT)
def test_we_read_every_vector_from_a_peer(channel: grpc.Channel, name: str) -> None:
    row = vectors.DETECT[name]
    answer = errors.call(channel, "Unary", f"detect/{name}")
    if answer.error.code() is grpc.StatusCode.DATA_LOSS:
        pytest.skip("grpc-go does not let a handler send malformed or contradicting details")
    assert answer.error.code() is vectors.CODES[row["code"]]
    assert answer.error.details() == row["message"]
    assert [value.hex() for value in answer.details] == (row["details_hex"] or [])
    assert verdict(answer.error) == (row["condition"], row["evidence"])


@pytest.mark.parametrize("name", NATIVE)
def test_we_read_what_a_peer_says_in_its_own_way(channel: grpc.Channel, name: str) -> None:
    error = errors.call(channel, "Unary", f"native/{name}").error
    assert verdict(error) == NATIVE[name]
    assert is_model_not_loaded(error) == (NATIVE[name][0] == NOT_LOADED)


def test_a_method_that_a_peer_lacks_is_not_a_missing_model(channel: grpc.Channel) -> None:
    error = errors.call(channel, "Absent", "native/words").error
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not is_model_not_loaded(error)


def test_a_peer_that_is_gone_is_not_a_missing_model(peer: peers.Peer) -> None:
    with peer.serving() as address:
        pass
    with grpc.insecure_channel(address) as channel:
        error = errors.call(channel, "Unary", "native/words").error
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert not is_model_not_loaded(error)


def go_receives(row: dict[str, Any]) -> bool:
    """Return whether grpc-go delivers a row; it reads code and message from the details."""
    if row["details_hex"] is None:
        return True
    try:
        (rich,) = (status_pb2.Status.FromString(bytes.fromhex(v)) for v in row["details_hex"])
    except (DecodeError, ValueError):
        return False
    return (rich.code, rich.message) == (row["code"], row["message"])


@pytest.mark.parametrize("peer", [peers.go], ids=["go"], indirect=True)
@pytest.mark.parametrize(
    "name", [name for name in vectors.DETECT if go_receives(vectors.DETECT[name])]
)
def test_the_detector_in_go_agrees(seen: Any, name: str) -> None:
    row, sighting = vectors.DETECT[name], seen[f"detect/{name}", "Unary"]
    assert (sighting["condition"] or None, sighting["evidence"] or None) == (
        row["condition"],
        row["evidence"],
    )


@pytest.mark.parametrize("peer", [peers.go], ids=["go"], indirect=True)
@pytest.mark.parametrize("shape", errors.SHAPES)
@pytest.mark.parametrize("name", vectors.BUILD)
def test_the_detector_in_go_knows_what_we_build(seen: Any, name: str, shape: str) -> None:
    sighting = seen[f"build/{name}", shape]
    assert sighting["condition"] == vectors.BUILD[name]["condition"]
    assert sighting["evidence"] == "details"
