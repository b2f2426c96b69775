"""The guard on real servers: every surface, every shape, every state a backend can be in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import MODEL_NOT_LOADED, ContractError, classify
from grpcerrors._guard.begun import begun
from grpcerrors._wire import decode
from tests.grpcerrors.support.guarded import SHAPES, SURFACES, Client, answer, guarded

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_LOADED = "MODEL_NOT_LOADED"
LOADING = "MODEL_LOADING"
STARTED = "MODEL_NOT_LOADED started"
MISMATCH = "MODEL_MISMATCH"

# state: what happened before the call
AT_REST = {
    "never loaded": [],
    "loaded": ["LoadModel"],
    "loaded, freed": ["LoadModel", "Free"],
    "loaded, freed, loaded": ["LoadModel", "Free", "LoadModel"],
    "loaded, free failed": ["LoadModel", "Free false"],
    "loaded, free raised": ["LoadModel", "Free raise"],
    "loaded, free aborted": ["LoadModel", "Free abort"],
    "loaded, free not implemented: aborted": ["LoadModel", "Free abort:UNIMPLEMENTED"],
    "loaded, free not implemented: code": ["LoadModel", "Free code:UNIMPLEMENTED"],
    "load answered no": ["LoadModel false"],
    "load raised": ["LoadModel raise"],
    "load raised a contract error": ["LoadModel typed"],
    "load aborted": ["LoadModel abort"],
    "load set a code": ["LoadModel code"],
    "loaded, load failed": ["LoadModel", "LoadModel false"],
    "load failed, loaded": ["LoadModel false", "LoadModel"],
}
LOADED = {
    "loaded",
    "loaded, freed, loaded",
    "loaded, free not implemented: aborted",
    "loaded, free not implemented: code",
    "load failed, loaded",
}

# what the handler does with the model there: (prompt, what the client sees, its words)
WHILE_LOADED = {
    "answers": ("", "OK", ""),
    "raises": ("raise", "UNKNOWN", "'NoneType' object has no attribute 'generate'"),
    "aborts": ("abort", "INVALID_ARGUMENT", "its own words"),
    "aborts and continues": ("swallow", "INTERNAL", "its own words"),
    "sets a code": ("code", "INTERNAL", "its own words"),
    "answers no": ("false", "OK", ""),
    "raises a contract error": ("typed", NOT_LOADED, "by-hand: model not loaded"),
    "aborts with a contract error": ("abort-typed", NOT_LOADED, "by-hand: model not loaded"),
}

# what the handler does after the model has gone under it. A stream knows no `success`.
MID_CALL = {
    "answers": ("", "OK"),
    "raises": ("raise", STARTED),
    "aborts": ("abort:INTERNAL", STARTED),
    "aborts and continues": ("swallow", STARTED),
    "sets a code": ("code", STARTED),
    "answers no": ("false", STARTED),
    "is not implemented": ("abort:UNIMPLEMENTED", "UNIMPLEMENTED"),
    "raises a contract error": ("typed", NOT_LOADED),
    "aborts with a contract error": ("abort-typed", NOT_LOADED),
}

GONE = {
    "freed": ["Free"],
    "freed and loaded": ["Free", "LoadModel"],
    "another loaded": ["LoadModel other"],
    "load failed": ["LoadModel false"],
    "evicted": ["unloaded"],
}


@pytest.fixture(params=SURFACES, scope="module")
def surface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(surface: str) -> Iterator[Client]:
    with guarded(surface) as client:
        yield client


def received(call: Any) -> list[Any]:
    """The messages that came before the error."""
    messages = []
    with pytest.raises(grpc.RpcError):
        messages.extend(iter(call))
    return messages


def do(client: Client, steps: list[str]) -> None:
    for step in steps:
        name, _, prompt = step.partition(" ")
        if step == "unloaded":
            client.guard.unloaded()
        elif prompt == "other":
            client.call(name, identity="other")
        else:
            client.call(name, prompt, identity="m" if name == "LoadModel" else "")


@pytest.mark.parametrize("state", AT_REST)
def test_at_rest(client: Client, state: str) -> None:
    do(client, AT_REST[state])
    expected = "OK" if state in LOADED else NOT_LOADED
    for identity in ("", "m"):
        seen = {name: client.call(name, identity=identity).verdict for name in SHAPES}
        assert seen == dict.fromkeys(SHAPES, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_refusal_names_backend_and_model(client: Client, shape: str) -> None:
    call = client.start(shape, identity="m")
    seen = answer(call)
    assert (seen.code, seen.text, seen.started, seen.messages) == (
        "FAILED_PRECONDITION",
        "kokoro: model not loaded",
        False,
        0,
    )
    assert seen.trailers["grpcerrors-unexecuted"] == NOT_LOADED
    assert call.initial_metadata() == (), "a proxy re-sends only what is trailers-only"


def test_another_identity_is_a_mismatch_where_the_request_shows_it(client: Client) -> None:
    client.load()
    seen = {name: client.call(name, identity="n").verdict for name in SHAPES}
    assert seen == {
        "Predict": MISMATCH,
        "PredictStream": MISMATCH,
        "Upload": "OK",
        "AudioTranscriptionLive": "OK",
    }
    assert client.call("Predict", identity="n").text == (
        'kokoro: model identity mismatch: loaded "m", requested "n"'
    )


def test_a_model_without_a_name_serves_every_name(client: Client) -> None:
    client.load(model="")
    assert client.call("Predict", identity="n").verdict == "OK"


@pytest.mark.parametrize("does", WHILE_LOADED)
@pytest.mark.parametrize("shape", SHAPES)
def test_with_the_model_there_the_handler_has_its_say(
    client: Client, shape: str, does: str
) -> None:
    prompt, verdict, text = WHILE_LOADED[does]
    client.load()
    seen = client.call(shape, f"trailer {prompt}", identity="m")
    assert seen.verdict == verdict
    assert text in seen.text
    assert seen.trailers["kept"] == "yes"


@pytest.mark.parametrize("does", MID_CALL)
@pytest.mark.parametrize("shape", SHAPES)
def test_freed_mid_call(client: Client, shape: str, does: str) -> None:
    prompt, verdict = MID_CALL[does]
    if SHAPES[shape][1]:  # a message has gone out by then, so an author's promise is void
        verdict = {"false": "OK", "typed": STARTED, "abort-typed": STARTED}.get(prompt, verdict)
    client.load()
    call = client.start(shape, f"trailer yield wait:there {prompt}", identity="m")
    client.gates.reached("there")
    assert client.call("Free").verdict == "OK"
    client.gates.open("there")
    seen = answer(call)
    assert seen.verdict == verdict
    assert seen.trailers["kept"] == "yes"
    assert ("grpcerrors-unexecuted" in seen.trailers) == (verdict == NOT_LOADED)
    if verdict == STARTED and SHAPES[shape][1]:
        assert seen.messages >= 1


@pytest.mark.parametrize("does", ["typed", "abort-typed", "status-typed", "plain abort:INTERNAL"])
@pytest.mark.parametrize("shape", ["PredictStream", "AudioTranscriptionLive"])
def test_nothing_is_unexecuted_after_the_first_message(
    client: Client, shape: str, does: str
) -> None:
    client.load()
    before, after = (client.start(shape, f"{words}{does}") for words in ("", "yield "))
    assert (len(received(before)), len(received(after))) == (0, 1)
    assert classify(before).unexecuted
    assert not classify(after).unexecuted
    assert classify(after).started == ("typed" in does)


def test_an_answer_that_has_begun_keeps_the_other_details() -> None:
    error = ContractError(MODEL_NOT_LOADED, backend="x", retry_after=1.5)
    ((key, details),) = begun(error.trailing_metadata) or ()
    (info,) = decode(details)
    assert key == "grpc-status-details-bin"
    assert info.metadata == {"backend": "x", "started": "true"}
    assert info.retry_after == 1.5


@pytest.mark.parametrize("way", GONE)
@pytest.mark.parametrize("shape", SHAPES)
def test_gone_mid_call(client: Client, shape: str, way: str) -> None:
    client.load()
    call = client.start(shape, "wait:there raise")
    client.gates.reached("there")
    do(client, GONE[way])
    client.gates.open("there")
    assert answer(call).verdict == STARTED


@pytest.mark.parametrize("change", ["LoadModel", "Free"])
@pytest.mark.parametrize("shape", SHAPES)
def test_while_a_change_is_under_way_there_is_no_model(
    client: Client, shape: str, change: str
) -> None:
    client.load()
    early = client.start(shape, "wait:early raise")
    client.gates.reached("early")
    under_way = client.start(change, "wait:change", identity="m" if change == "LoadModel" else "")
    client.gates.reached("change")
    assert client.call(shape).verdict == (LOADING if change == "LoadModel" else NOT_LOADED)
    client.gates.open("early")
    assert answer(early).verdict == STARTED
    client.gates.open("change")
    assert answer(under_way).verdict == "OK"
    assert client.call(shape).verdict == ("OK" if change == "LoadModel" else NOT_LOADED)


@pytest.mark.parametrize("ending", ["abort:UNIMPLEMENTED", "code:UNIMPLEMENTED raise"])
def test_a_free_that_is_not_implemented_leaves_calls_alone(client: Client, ending: str) -> None:
    client.load()
    call = client.start("Predict", "wait:there raise")
    client.gates.reached("there")
    assert client.call("Free", ending).verdict == "UNIMPLEMENTED"
    client.gates.open("there")
    assert answer(call).verdict == "UNKNOWN"
    assert client.call("Predict").verdict == "OK"


@pytest.mark.parametrize("last", ["first", "second"])
def test_of_loads_that_overlap_none_counts(client: Client, last: str) -> None:
    calls = {}
    for name in ("first", "second"):
        calls[name] = client.start("LoadModel", f"wait:{name}", identity=name)
        client.gates.reached(name)
    for name in sorted(calls, key=lambda name: name == last):
        client.gates.open(name)
        assert answer(calls[name]).verdict == "OK"
    assert client.call("Predict").verdict == NOT_LOADED
    client.load()
    assert client.call("Predict").verdict == "OK"


@pytest.mark.parametrize("shape", ["Health"])
def test_the_control_plane_passes(client: Client, shape: str) -> None:
    assert client.call(shape).verdict == "OK"
    assert client.call(shape, "raise").verdict == "UNKNOWN"
    assert client.call(shape, "false").verdict == "OK"
    assert client.call(shape, "typed").verdict == NOT_LOADED
    assert client.call(shape, "abort").verdict == "INVALID_ARGUMENT"


def test_an_eviction_during_a_load_is_of_the_model_before(client: Client) -> None:
    client.load()
    call = client.start("LoadModel", "wait:load", identity="n")
    client.gates.reached("load")
    client.guard.unloaded()
    client.gates.open("load")
    assert answer(call).verdict == "OK"
    assert client.call("Predict", identity="n").verdict == "OK"
