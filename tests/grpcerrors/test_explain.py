"""What a person reads, word for word, for each rung that may decide."""

from __future__ import annotations

import pytest
from grpc import StatusCode

import grpcerrors
from grpcerrors import Condition, _builtin, _wire, explain
from tests.grpcerrors.support import errors

PLAIN = "grpcerrors-unexecuted"


def _with(code: StatusCode, text: str, *infos: tuple[str, str]) -> object:
    return errors.sync_error(code, text, errors.trailers(errors.status(code, text, *infos)))


CASES = {
    "details": (
        grpcerrors.model_not_loaded("x", model="m"),
        """\
model not loaded, backend 'x', model 'm'
  because its details say so (grpcerrors/MODEL_NOT_LOADED)
  error: FAILED_PRECONDITION, 'x: model not loaded', grpcerrors/MODEL_NOT_LOADED backend='x' \
model='m', grpcerrors-unexecuted: MODEL_NOT_LOADED""",
    ),
    "the plain trailer": (
        errors.sync_error(StatusCode.UNAVAILABLE, "no", ((PLAIN, "MODEL_LOADING"),)),
        """\
model loading
  because its plain trailer says so, as its details are gone (grpcerrors/MODEL_LOADING)
  error: UNAVAILABLE, 'no', grpcerrors-unexecuted: MODEL_LOADING""",
    ),
    "the plain trailer, of a later version": (
        errors.sync_error(StatusCode.UNKNOWN, "model not loaded", ((PLAIN, "FROM_2030"),)),
        """\
nothing that the contract knows
  because its plain trailer says so, as its details are gone (grpcerrors/FROM_2030): a reason \
that this version does not know, so text and code do not count
  error: UNKNOWN, 'model not loaded', grpcerrors-unexecuted: FROM_2030""",
    ),
    "the plain trailer, of another domain": (
        errors.sync_error(StatusCode.UNKNOWN, "no", ((PLAIN, "example.com/QUOTA"),)),
        """\
nothing that the contract knows
  because its details are of another domain, which rules out the code, and no words are known
  error: UNKNOWN, 'no', grpcerrors-unexecuted: example.com/QUOTA""",
    ),
    "loading": (
        grpcerrors.model_loading("x", retry_after=2.5),
        """\
model loading, backend 'x'
  because its details say so (grpcerrors/MODEL_LOADING)
  error: UNAVAILABLE, 'x: model is loading', grpcerrors/MODEL_LOADING backend='x', retry after \
2.5 s, grpcerrors-unexecuted: MODEL_LOADING""",
    ),
    "details, started": (
        grpcerrors.model_not_loaded("x", started=True),
        """\
model not loaded, backend 'x'
  because its details say so (grpcerrors/MODEL_NOT_LOADED); the handler had begun to work on it
  error: FAILED_PRECONDITION, 'x: model not loaded', grpcerrors/MODEL_NOT_LOADED backend='x' \
started='true'""",
    ),
    "details, of a later version": (
        _with(StatusCode.FAILED_PRECONDITION, "x: model not loaded", ("grpcerrors", "FROM_2030")),
        """\
nothing that the contract knows
  because its details say so (grpcerrors/FROM_2030): a reason that this version does not know, so \
text and code do not count
  error: FAILED_PRECONDITION, 'x: model not loaded', grpcerrors/FROM_2030""",
    ),
    "words": (
        errors.wrapped(errors.sync_error(StatusCode.INTERNAL, "x: model not loaded")),
        """\
model not loaded, backend 'x'
  because of its words, which are those of LocalAI and others; it has no known details
  error: no code, 'the request failed'
  wraps: INTERNAL, 'x: model not loaded'""",
    ),
    "code": (
        errors.sync_error(StatusCode.FAILED_PRECONDITION, "not now"),
        """\
model not loaded
  because of its bare code, FAILED_PRECONDITION: it has no details and no known words. Ask \
the backend's Status before acting on it
  error: FAILED_PRECONDITION, 'not now'""",
    ),
    "a bare UNIMPLEMENTED": (
        errors.sync_error(StatusCode.UNIMPLEMENTED, "Method not found!"),
        """\
not implemented (or, for AudioTranscriptionLive, live transcription unsupported)
  because of its bare code, UNIMPLEMENTED: it has no details and no known words
  error: UNIMPLEMENTED, 'Method not found!'""",
    ),
    "a stub older than the RPC": (
        errors.sync_error(StatusCode.UNKNOWN, "unimplemented"),
        """\
not implemented (or, for AudioTranscriptionLive, live transcription unsupported)
  because of its words, which are those of stubs older than the RPC; it has no known details
  error: UNKNOWN, 'unimplemented'""",
    ),
    "the router": (
        _with(StatusCode.NOT_FOUND, 'unknown model "tiny"', ("grpcerrors", "UNKNOWN_MODEL")),
        """\
unknown model
  because its details say so (grpcerrors/UNKNOWN_MODEL): neither models.toml nor any node has \
that model; fix the name
  error: NOT_FOUND, 'unknown model "tiny"', grpcerrors/UNKNOWN_MODEL""",
    ),
    "held": (
        errors.sync_error(StatusCode.UNKNOWN, "model not loaded", (("grpcerrors-held", b"m"),)),
        """\
nothing that the contract knows
  because a guard reports that the model was loaded, so words and code mean something else
  error: UNKNOWN, 'model not loaded', model 'm' held""",
    ),
    "details of another domain": (
        _with(StatusCode.FAILED_PRECONDITION, "not now", ("example.com", "QUOTA")),
        """\
nothing that the contract knows
  because its details are of another domain, which rules out the code, and no words are known
  error: FAILED_PRECONDITION, 'not now', example.com/QUOTA""",
    ),
    "nothing": (
        None,
        """\
nothing that the contract knows
  because neither its details nor its words nor its code are known
  error: no code, ''""",
    ),
}


@pytest.mark.parametrize(("err", "said"), CASES.values(), ids=CASES)
def test_what_decided_is_explained(err: object, said: str) -> None:
    assert explain(err) == said


def test_a_long_text_is_cut() -> None:
    """To a line that fits a screen."""
    assert f"\n  error: no code, '{'x' * 88}'" in explain(ValueError("x" * 88))
    assert f"\n  error: no code, '{'x' * 87}…'" in explain(ValueError("x" * 89))


def test_a_sender_can_neither_steer_the_terminal_nor_fill_it() -> None:
    reason = ("grpcerrors", "A\x1b[2J\nB\x9b" + "C" * 5000)
    said = explain(_with(StatusCode.UNKNOWN, "no", reason, ("example.com", "\x07")))
    lines = said.splitlines()
    assert len(lines) == 3
    assert "grpcerrors/A?[2J?B?CCC" in said
    assert max(map(len, lines)) == 1000
    assert all(line.isprintable() for line in lines)


def _chain(length: int) -> Exception:
    err = Exception(f"error {length}")
    for number in range(length - 1, 0, -1):
        err = errors.wrapped(err, f"error {number}")
    return err


def test_five_errors_of_a_chain_are_shown() -> None:
    """Of the others, how many they are."""
    shown = [f"  wraps: no code, 'error {number}'" for number in range(2, 6)]
    assert explain(_chain(5)).splitlines()[2:] == ["  error: no code, 'error 1'", *shown]
    lines = explain(_chain(7)).splitlines()
    assert lines[2:] == ["  error: no code, 'error 1'", *shown, "  and 2 more that it wraps"]


def test_the_router_is_explained_with_model_and_node() -> None:
    info = _wire.ErrorInfo("grpcerrors", "LOAD_FAILED", {"model": "m", "node": "n"})
    text, trailers, _ = _wire.encode(StatusCode.UNAVAILABLE, lambda _: "no", info)
    err = errors.sync_error(StatusCode.UNAVAILABLE, text, trailers)
    assert explain(err).startswith("load failed, model 'm', node 'n'\n")


def test_exactly_the_reasons_of_the_router_and_the_host_are_explained() -> None:
    router = pytest.importorskip("grpcerrors_router.errors")
    host = pytest.importorskip("grpcerrors_backends.host.refusals")
    refusals = {each.reason for each in vars(host).values() if isinstance(each, Condition)}
    assert refusals >= {"SLOTS_BUSY", "SUPERSEDED_LOAD", "INVALID_METADATA"}
    assert set(_builtin.ADVICE) == router.REASONS | refusals
