"""What is built is detected at the other end of a real channel, whatever happens on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

import grpcerrors
from grpcerrors import Evidence, classify
from tests.grpcerrors.support import errors
from tests.grpcerrors.support.serving import Answer, Client
from tests.grpcerrors.test_wire import ANY_TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOT_LOADED = st.builds(grpcerrors.model_not_loaded, ANY_TEXT, model=ANY_TEXT, started=st.booleans())
BUILT: st.SearchStrategy[grpcerrors.ContractError] = st.one_of(
    NOT_LOADED,
    st.builds(grpcerrors.model_loading, ANY_TEXT, model=ANY_TEXT, retry_after=st.floats(0, 1e9)),
    st.builds(grpcerrors.model_mismatch, ANY_TEXT, loaded=ANY_TEXT, requested=ANY_TEXT),
    st.builds(grpcerrors.live_transcription_unsupported, ANY_TEXT, ANY_TEXT),
    st.builds(grpcerrors.stream_transcription_unsupported, ANY_TEXT, ANY_TEXT),
)
PREDICATES: dict[grpcerrors.Condition, Callable[[object], bool]] = {
    grpcerrors.MODEL_NOT_LOADED: grpcerrors.is_model_not_loaded,
    grpcerrors.MODEL_MISMATCH: grpcerrors.is_model_mismatch,
    grpcerrors.MODEL_LOADING: grpcerrors.is_model_loading,
    grpcerrors.LIVE_TRANSCRIPTION_UNSUPPORTED: grpcerrors.is_live_transcription_unsupported,
}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Connect to a real server that fails as it is told."""
    with Answer.serve() as target, Client(target) as connected:
        yield connected


@given(error=BUILT)
def test_what_is_built_is_detected(client: Client, error: grpcerrors.ContractError) -> None:
    """Sync and aio, with its fields, and as no other condition."""
    answer = Answer(error.code, error.details, error.trailing_metadata)
    for received in (client.sync_failure(answer), client.aio_failure(answer)):
        verdict = classify(received)
        assert (verdict.condition, verdict.evidence) == (error.condition, Evidence.DETAILS)
        assert verdict.fields == error.fields
        for condition, predicate in PREDICATES.items():
            assert predicate(received) is (condition == error.condition)


# What LocalAI's Go library answers: the code, or the words under any code.
def _go_says_not_loaded(code: StatusCode, text: str) -> bool:
    return code is StatusCode.FAILED_PRECONDITION or "model not loaded" in text.lower()


def _of_details(
    change: Callable[[bytes, float], bytes],
) -> Callable[[errors.Trailers, float], errors.Trailers]:
    """A proxy that changes binary trailers, and passes plain ones."""
    return lambda trailers, at: tuple(
        (key, change(value, at) if isinstance(value, bytes) else value) for key, value in trailers
    )


def _flip(value: bytes, at: float) -> bytes:
    middle = int((len(value) - 1) * at)
    return value[:middle] + bytes([value[middle] ^ 1]) + value[middle + 1 :]


_truncate = _of_details(lambda value, at: value[: int(len(value) * at)])
MUTATIONS: dict[str, Callable[..., errors.Trailers]] = {
    "untouched": lambda trailers, _: trailers,
    "all stripped": lambda _, __: (),
    "-bin stripped": lambda trailers, _: trailers[1:],
    "plain stripped": lambda trailers, _: trailers[:1],
    "doubled": lambda trailers, _: trailers * 2,
    "doubled and truncated": lambda trailers, at: (*trailers, *_truncate(trailers, at)),
    "truncated": _truncate,
    "emptied": _of_details(lambda _, __: b""),
    "re-prefixed": _of_details(
        lambda value, _: value.replace(b"type.googleapis.com/", b"type.example.test.io/")
    ),
    "bit flipped": _of_details(_flip),
}


@given(
    error=NOT_LOADED,
    mutation=st.sampled_from([name for name in MUTATIONS if name != "bit flipped"]),
    at=st.floats(0, 1),
    text=st.none() | st.text() | st.sampled_from(["", "upstream error", "unimplemented"]),
)
def test_a_proxy_never_makes_it_worse_than_in_go(
    error: grpcerrors.ContractError, mutation: str, at: float, text: str | None
) -> None:
    """Whatever it does to trailers and text, what Go detects is detected."""
    said = error.details if text is None else text
    received = errors.aio_error(error.code, said, MUTATIONS[mutation](error.trailing_metadata, at))
    assert grpcerrors.is_model_not_loaded(received) >= _go_says_not_loaded(error.code, said)


@given(error=BUILT, mutation=st.sampled_from(list(MUTATIONS)), at=st.floats(0, 1))
def test_a_proxy_never_makes_one_condition_of_another(
    error: grpcerrors.ContractError, mutation: str, at: float
) -> None:
    """Broken trailers leave it what it was, or nothing, or what its bare code stands for."""
    received = errors.sync_error(error.code, "", MUTATIONS[mutation](error.trailing_metadata, at))
    verdict = classify(received)
    if verdict.typed:
        assert verdict.condition in (error.condition, None)
    else:
        assert verdict.evidence in (Evidence.CODE, None)


WORDS = st.sampled_from(
    [
        "x: model not loaded",
        'x: model identity mismatch: loaded "a", requested "b"',
        "no model loaded",
        "'BackendServicer' object has no attribute 'model'",
        "Request for unknown model: 'x' is not found",
        "unimplemented",
    ]
)
QUOTING = [
    StatusCode.INVALID_ARGUMENT,
    StatusCode.OUT_OF_RANGE,
    StatusCode.ALREADY_EXISTS,
    StatusCode.PERMISSION_DENIED,
    StatusCode.UNAUTHENTICATED,
    StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.CANCELLED,
    StatusCode.ABORTED,
    StatusCode.DATA_LOSS,
]


@given(
    code=st.sampled_from(QUOTING),
    before=st.text(),
    words=WORDS,
    after=st.text(),
    wrap=st.sampled_from([lambda err, _: err, errors.wrapped]),
)
def test_a_user_cannot_talk_a_router_into_dropping_a_replica(
    code: StatusCode,
    before: str,
    words: str,
    after: str,
    wrap: Callable[[Exception, str], Exception],
) -> None:
    """User text in a code that quotes it says nothing, even through a wrapper that repeats it."""
    text = f"{before}{words}{after}"
    received: Any = wrap(errors.sync_error(code, text), text)
    assert classify(received) == grpcerrors.Verdict()
    assert not any(predicate(received) for predicate in PREDICATES.values())
