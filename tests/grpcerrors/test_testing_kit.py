from __future__ import annotations

import contextlib
import dataclasses
import importlib
import re
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from grpcerrors import (
    CATALOGUE,
    MODEL_MISMATCH,
    MODEL_NOT_LOADED,
    Condition,
    ContractError,
    Evidence,
    classify,
    matches,
    model_not_loaded,
)
from grpcerrors._guard.abort import abort
from grpcerrors.testing import Aborted, FakeAioContext, FakeContext, FakeRpcError, strategies

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

CONDITIONS = tuple(CATALOGUE)
# These hold the kit to its word; the library's own properties take the profile's number.
FEW = settings(max_examples=100)

conditions = st.sampled_from(CONDITIONS)
coded = st.sampled_from([each for each in CONDITIONS if each.code_alone])

MINE = Condition("LOW_BATTERY", grpc.StatusCode.ABORTED, "{name} is low", domain="example.com")


def maybe_wrapped(errors: SearchStrategy[grpc.RpcError]) -> SearchStrategy[BaseException]:
    return errors | strategies.wrapped(errors)


@FEW
@given(st.data(), conditions)
def test_typed_errors_mean_the_condition_by_details(data: Any, condition: Condition) -> None:
    verdict = classify(data.draw(maybe_wrapped(strategies.typed_errors(condition))))
    assert (verdict.condition, verdict.evidence) == (condition, Evidence.DETAILS)


@FEW
@given(st.data(), conditions)
def test_text_errors_mean_the_condition_by_text(data: Any, condition: Condition) -> None:
    verdict = classify(data.draw(maybe_wrapped(strategies.text_errors(condition))))
    assert (verdict.condition, verdict.evidence) == (condition, Evidence.TEXT)


@FEW
@given(st.data(), conditions)
def test_trailer_errors_mean_the_condition_by_the_plain_trailer(
    data: Any, condition: Condition
) -> None:
    verdict = classify(data.draw(maybe_wrapped(strategies.trailer_errors(condition))))
    assert (verdict.condition, verdict.evidence) == (condition, Evidence.TRAILER)
    assert verdict.unexecuted


@FEW
@given(st.data(), coded)
def test_code_errors_mean_the_condition_by_code(data: Any, condition: Condition) -> None:
    verdict = classify(data.draw(maybe_wrapped(strategies.code_errors(condition))))
    assert (verdict.condition, verdict.evidence) == (condition, Evidence.CODE)


@FEW
@given(st.data(), conditions)
def test_damaged_errors_still_mean_the_condition(data: Any, condition: Condition) -> None:
    verdict = classify(data.draw(maybe_wrapped(strategies.damaged_errors(condition))))
    assert verdict.condition == condition
    assert verdict.evidence in (Evidence.DETAILS, Evidence.TRAILER, Evidence.TEXT)


@FEW
@given(st.data(), conditions)
def test_vetoed_errors_do_not_mean_the_condition(data: Any, condition: Condition) -> None:
    assert not matches(data.draw(maybe_wrapped(strategies.vetoed_errors(condition))), condition)


@FEW
@given(maybe_wrapped(strategies.unrelated_errors()))
def test_unrelated_errors_mean_no_condition(error: BaseException) -> None:
    assert classify(error) == classify(None)


@FEW
@given(strategies.contract_errors())
def test_contract_errors_are_of_the_condition(error: ContractError) -> None:
    assert error.condition == MODEL_NOT_LOADED


@FEW
@given(st.data())
def test_a_condition_of_ones_own_has_typed_errors(data: Any) -> None:
    assert matches(data.draw(strategies.typed_errors(MINE)), MINE)
    assert matches(data.draw(strategies.damaged_errors(MINE)), MINE)
    assert not matches(data.draw(strategies.vetoed_errors(MINE)), MINE)


def test_a_condition_without_words_has_no_text_errors() -> None:
    with pytest.raises(ValueError, match="no dialect of LOW_BATTERY knows"):
        strategies.text_errors(MINE)


def test_a_condition_that_proves_nothing_has_no_plain_trailer() -> None:
    with pytest.raises(ValueError, match="LOW_BATTERY has no plain trailer"):
        strategies.trailer_errors(MINE)
    proves = dataclasses.replace(MINE, unexecuted=True)
    error = find(strategies.trailer_errors(proves), lambda _: True)
    assert matches(error, proves)


def test_a_condition_whose_code_says_nothing_has_no_code_errors() -> None:
    with pytest.raises(ValueError, match="NOT_FOUND alone does not mean MODEL_MISMATCH"):
        strategies.code_errors(MODEL_MISMATCH)


@pytest.mark.parametrize("surface", [FakeRpcError, grpc.aio.AioRpcError])
def test_errors_come_from_both_surfaces(surface: type) -> None:
    found = find(strategies.typed_errors(), lambda error: isinstance(error, surface))
    assert isinstance(found, grpc.RpcError)


def test_without_hypothesis_the_fakes_work_and_the_strategies_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "grpcerrors.testing.strategies")
    assert importlib.import_module("grpcerrors.testing").vectors()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'grpcerrors\[testing\]'"):
        importlib.import_module("grpcerrors.testing.strategies")


def test_a_fake_error_is_read_as_a_real_one() -> None:
    error = FakeRpcError(grpc.StatusCode.ABORTED, "try again", [("k", "v")])
    assert isinstance(error, grpc.RpcError)
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "try again")
    assert error.trailing_metadata() == (("k", "v"),)
    assert repr(error) == "FakeRpcError(StatusCode.ABORTED, 'try again', (('k', 'v'),))"


def test_a_fake_context_records_an_abort_and_keeps_trailers() -> None:
    context = FakeContext()
    context.set_trailing_metadata((("k", "v"),))
    assert context.is_active()
    with pytest.raises(Aborted):
        abort(context, model_not_loaded("x"))
    assert context.error is not None
    assert classify(context.error).evidence is Evidence.DETAILS
    assert context.error.trailing_metadata()[0] == ("k", "v")
    assert not context.is_active()
    assert not context.add_callback(print)


async def test_a_fake_aio_context_records_an_abort_and_keeps_trailers() -> None:
    context = FakeAioContext()
    context.set_trailing_metadata((("k", "v"),))
    assert not context.done()
    with pytest.raises(Aborted):
        await abort(context, model_not_loaded("x"))
    assert context.error is not None
    assert classify(context.error).evidence is Evidence.DETAILS
    assert context.error.trailing_metadata()[0] == ("k", "v")
    assert context.done()


async def test_abort_with_status_takes_an_error_of_the_contract() -> None:
    error = model_not_loaded("x")
    sync, aio = FakeContext(), FakeAioContext()
    with pytest.raises(Aborted):
        sync.abort_with_status(error)
    with pytest.raises(Aborted):
        await aio.abort_with_status(error)
    for context in (sync, aio):
        assert context.error is not None
        assert context.error.trailing_metadata() == error.trailing_metadata


async def test_an_aio_abort_may_bring_its_trailers() -> None:
    context = FakeAioContext()
    with pytest.raises(Aborted):
        await context.abort(grpc.StatusCode.ABORTED, "no", (("k", "v"),))
    assert context.trailing_metadata() == (("k", "v"),)


def test_an_abort_that_was_caught_is_not_taken_twice() -> None:
    context = FakeContext()
    with contextlib.suppress(Aborted):
        context.abort(grpc.StatusCode.INTERNAL, "first")
    with pytest.raises(RuntimeError, match="abort was called twice"):
        context.abort(grpc.StatusCode.INTERNAL, "second")
    assert context.details() == "first"


def test_ok_is_no_abort() -> None:
    with pytest.raises(ValueError, match="return instead"):
        FakeContext().abort(grpc.StatusCode.OK, "")


@pytest.mark.parametrize("make", [FakeContext, FakeAioContext])
def test_a_fake_context_tells_of_its_call(make: Any) -> None:
    context = make(invocation_metadata=[("a", "b")], time_remaining=3.0, peer="ipv4:10.0.0.1:1")
    assert context.invocation_metadata() == (("a", "b"),)
    assert context.time_remaining() == 3.0
    assert context.peer() == "ipv4:10.0.0.1:1"
    assert context.peer_identities() is context.peer_identity_key() is None
    assert context.auth_context() == {}
    context.set_compression(grpc.Compression.Gzip)
    context.disable_next_message_compression()
    assert context.error is None


@pytest.mark.parametrize("make", [FakeContext, FakeAioContext])
def test_a_code_that_a_handler_sets_is_the_error(make: Any) -> None:
    context = make()
    context.set_code(grpc.StatusCode.NOT_FOUND)
    context.set_details("no")
    assert (context.code(), context.details()) == (grpc.StatusCode.NOT_FOUND, "no")
    assert (context.error.code(), context.error.details()) == (grpc.StatusCode.NOT_FOUND, "no")


async def test_initial_metadata_and_messages_are_recorded() -> None:
    sync, aio = FakeContext(), FakeAioContext()
    sync.send_initial_metadata([("a", "b")])
    await aio.send_initial_metadata([("a", "b")])
    assert sync.initial_metadata == aio.initial_metadata == (("a", "b"),)
    await aio.write("m")
    assert aio.written == ["m"]
    assert await aio.read() is grpc.aio.EOF


def test_a_cancelled_call_is_so() -> None:
    sync, aio = FakeContext(), FakeAioContext()
    sync.cancel()
    assert sync.code() is grpc.StatusCode.CANCELLED
    aio.add_done_callback(print)
    assert not aio.cancelled()
    aio.set_code(grpc.StatusCode.CANCELLED)
    assert aio.cancelled()


@pytest.mark.skipif(
    not Path(__file__).parents[2].joinpath("docs/how-to/testing.md").exists(),
    reason="the docs do not travel with the wheel",
)
def test_the_example_in_the_docs_runs(tmp_path: Path) -> None:
    text = Path(__file__).parents[2].joinpath("docs/how-to/testing.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "example.py"
    path.write_text(example)
    names = runpy.run_path(str(path))
    tests = [names[name] for name in names if name.startswith("test_")]
    assert len(tests) == 4
    for test in tests:
        test()
