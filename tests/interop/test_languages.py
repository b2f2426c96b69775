"""Live calls both ways between the files of other languages and us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from grpcerrors import Evidence, classify, held_model, is_model_not_loaded
from tests.interop.support import errors, frames, peers, vectors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from typing import TypeAlias

    Seen: TypeAlias = dict[tuple[str, str], peers.Sighting]

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


@pytest.fixture(scope="module", params=peers.CALLERS)
def language(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def caller(language: str, building: dict[str, Future[peers.Peer]]) -> peers.Peer:
    return building[language].result()


@pytest.fixture(scope="module")
def address(caller: peers.Peer) -> Iterator[str]:
    with caller.serving() as address:
        yield address


@pytest.fixture(scope="module")
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address) as channel:
        yield channel


@pytest.fixture(scope="module", params=[errors.serving, errors.serving_aio], ids=["sync", "aio"])
def seen(caller: peers.Peer, request: pytest.FixtureRequest) -> Seen:
    with request.param() as address:
        return caller.ask(address)


# Python serves, the other language detects.


@pytest.mark.parametrize("shape", errors.SHAPES)
def test_a_peer_detects_what_we_send(seen: Seen, shape: str) -> None:
    for name, row in vectors.BUILD.items():
        _, (info, *_) = vectors.details(row["details_hex"])
        assert seen[f"build/{name}", shape] == peers.Sighting(
            received=errors.received("build/", shape),
            code=row["code"],
            message=row["message"],
            condition=row["condition"],
            evidence="details",
            unexecuted=not row["started"],
            retry_after=row["retry_after"],
            held="",
            metadata=dict(info.metadata),
        )


@pytest.mark.parametrize("shape", errors.SHAPES)
def test_a_peer_detects_every_vector(language: str, seen: Seen, shape: str) -> None:
    arrive = [row for row in vectors.DETECT.values() if not LOST[language](row)]
    assert len(arrive) > 0.7 * len(vectors.DETECT)
    assert {row["name"]: _answer(seen[f"detect/{row['name']}", shape]) for row in arrive} == {
        row["name"]: tuple(row[name] for name in COLUMNS) for row in arrive
    }


COLUMNS = ("condition", "evidence", "unexecuted", "retry_after", "held")


def _answer(sighting: peers.Sighting) -> tuple[Any, ...]:
    values = [getattr(sighting, name) for name in COLUMNS]
    return tuple(None if value == "" else value for value in values)


def go_loses(row: dict[str, Any]) -> bool:
    """Return whether grpc-go 1.33 hides a row: it takes code and message from the details."""
    if not row["details_hex"]:
        return False
    try:
        (rich,) = (status_pb2.Status.FromString(bytes.fromhex(v)) for v in row["details_hex"])
    except (DecodeError, ValueError):
        return True
    return (rich.code, rich.message) != (row["code"], row["message"])


def node_loses(row: dict[str, Any]) -> bool:
    """Return whether Node or grpc-js hides a row.

    Node joins values of one name, and grpc-js decodes them as one if the name begins with `grpc-`.
    It drops values that begin or end with a space, as HTTP/2 has no such (RFC 9113, section 8.2.1).
    """
    doubled = len(row["details_hex"] or ()) > 1 and row["evidence"] == "details"
    values = [row["message"], *(value for _, value in row["trailers"])]
    return doubled or any(value != value.strip(" ") for value in values)


def nothing_lost(_row: dict[str, Any]) -> bool:
    return False


LOST = {"go": go_loses, "node": node_loses, "cpp": nothing_lost, "java": nothing_lost}


# The other language serves, Python detects.


def check_built(answer: errors.Answer, row: str, shape: str) -> None:
    given = vectors.BUILD[row.partition("/")[2]]
    assert [value.hex() for value in answer.trailers(errors.DETAILS)] == [given["details_hex"]]
    plain = [[errors.UNEXECUTED, value] for value in answer.trailers(errors.UNEXECUTED)]
    assert plain == given["trailers"]
    assert answer.error.code() is vectors.CODES[given["code"]]
    assert answer.error.details() == given["message"]
    verdict = classify(answer.error)
    assert verdict.condition is vectors.CONDITIONS[given["condition"]]
    assert verdict.evidence is Evidence.DETAILS
    assert verdict.unexecuted != given["started"]
    assert verdict.retry_after == given["retry_after"]
    assert answer.received == errors.received(row, shape)


@pytest.mark.parametrize("shape", errors.SHAPES)
@pytest.mark.parametrize("kind", ["build", "refuse"])
def test_we_detect_what_a_peer_builds(channel: grpc.Channel, kind: str, shape: str) -> None:
    for name in vectors.BUILD:
        check_built(errors.call(channel, shape, f"{kind}/{name}"), f"{kind}/{name}", shape)


@pytest.mark.parametrize("shape", errors.SHAPES)
@pytest.mark.parametrize("kind", ["build", "refuse"])
async def test_we_detect_on_an_aio_channel_what_a_peer_builds(
    address: str, kind: str, shape: str
) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        for name in vectors.BUILD:
            answer = await errors.call_aio(channel, shape, f"{kind}/{name}")
            check_built(answer, f"{kind}/{name}", shape)


@pytest.mark.parametrize("serving", [errors.serving, errors.serving_aio], ids=["sync", "aio"])
def test_our_own_refusals_are_trailers_only(serving: Any) -> None:
    with serving() as address:
        for shape in errors.SHAPES:
            assert frames.is_trailers_only(address, shape, "refuse/mismatch")


@pytest.mark.parametrize("shape", errors.SHAPES)
def test_a_refusal_is_trailers_only(address: str, shape: str) -> None:
    # On a busy machine grpc++ now and then writes the headers of a stream before the trailers.
    seen = [frames.is_trailers_only(address, shape, "refuse/mismatch") for _ in range(5)]
    assert sum(seen) > len(seen) / 2
    assert frames.is_trailers_only(address, shape, "build/mismatch") == (
        shape not in errors.STREAMING
    )


def test_we_detect_every_vector_from_a_peer(channel: grpc.Channel) -> None:
    sent = 0
    for name, row in vectors.DETECT.items():
        answer = errors.call(channel, "Unary", f"detect/{name}")
        if answer.error.code() is grpc.StatusCode.DATA_LOSS:
            continue  # the peer's gRPC does not let a handler send this
        sent += 1
        assert answer.error.code() is vectors.CODES[row["code"]]
        assert answer.error.details() == row["message"]
        assert [value.hex() for value in answer.details] == (row["details_hex"] or [])
        assert verdict(answer.error) == (row["condition"], row["evidence"]), name
    assert sent > 0.7 * len(vectors.DETECT)


@pytest.mark.parametrize("shape", errors.SHAPES)
def test_a_peer_vouches_for_its_model(channel: grpc.Channel, shape: str) -> None:
    for model, held in {"tiny.en": "tiny.en", "": "1", "100% base": "100% base"}.items():
        error = errors.call(channel, shape, f"held/{model}").error
        assert error.code() is grpc.StatusCode.UNKNOWN
        assert held_model(error) == held
        assert verdict(error) == (None, None)


@pytest.mark.parametrize("name", NATIVE)
def test_we_detect_what_a_peer_says_in_its_own_way(channel: grpc.Channel, name: str) -> None:
    error = errors.call(channel, "Unary", f"native/{name}").error
    assert verdict(error) == NATIVE[name]
    assert is_model_not_loaded(error) == (NATIVE[name][0] == NOT_LOADED)


def test_a_method_that_a_peer_lacks_is_not_a_missing_model(channel: grpc.Channel) -> None:
    error = errors.call(channel, "Absent", "native/words").error
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not is_model_not_loaded(error)


def test_a_peer_that_is_gone_is_not_a_missing_model(caller: peers.Peer) -> None:
    with caller.serving() as address:
        pass
    with grpc.insecure_channel(address) as channel:
        error = errors.call(channel, "Unary", "native/words").error
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert not is_model_not_loaded(error)


def verdict(error: object) -> tuple[str | None, Evidence | None]:
    found = classify(error)
    return found.condition.reason if found.condition else None, found.evidence
