"""The router's own errors: their texts, their size, and copies of them."""

from __future__ import annotations

import copy
import difflib
import pickle
from typing import TYPE_CHECKING

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from grpcerrors import classify, explain
from grpcerrors._wire import TRAILERS_LIMIT, trailers_size
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import errors
from grpcerrors_router.errors import REASONS, RouteError
from tests.router.support.rawnode import stack

if TYPE_CHECKING:
    from pathlib import Path

LONG = 'é"\n\0\ud800' * 5000


def made(text: str) -> list[RouteError]:
    """Return one error of each class, with `text` wherever callers or nodes can put text."""
    return [
        errors.Unauthenticated(text),
        errors.PermissionDenied(text, text, text, model=text),
        errors.NoModelKey(text),
        errors.InvalidRequest(text, text),
        errors.NotRouted(text),
        errors.ProxyLoop(text, text),
        errors.Overloaded(text, model=text),
        errors.InvalidNode(text),
        errors.UnknownModel(text, [text, "m"]),
        errors.UnknownNode(text, [text, "n"]),
        errors.NotReloadable(),
        errors.NoCapacity(text, text, 2.5),
        errors.LoadFailed(text, text, text, answered=True, retry_after=2.5),
        errors.LoadFailed(text, text, text, answered=False, retry_after=2.5),
        errors.LoadTimeout(text),
        errors.NodeLost(),
        errors.InUse(text, text),
        errors.InternalFailure(),
        errors.RegistryUnavailable(text),
        errors.RegistryOutdated(text, text),
        errors.NameTaken(text, text, text, text),
        errors.RouterStopping(),
        errors.UnloadUnsupported(text, text),
    ]


def test_every_error_is_made_here() -> None:
    subclasses = set(RouteError.__subclasses__())
    assert {type(error) for error in made("x")} == subclasses
    assert {kind.reason for kind in subclasses} | {RouteError.reason} == REASONS
    assert len(REASONS) == len(subclasses) + 1


def test_no_name_is_compared_for_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request may name a model of 50 MB, and comparing blocks the event loop."""
    compared = []

    def compare(word: str, *_: object, **__: object) -> list[str]:
        compared.append(len(word))
        return []

    monkeypatch.setattr(difflib, "get_close_matches", compare)
    errors.UnknownModel("x" * 40_000_000, ["m"])
    assert max(compared) <= 1000


@pytest.mark.parametrize("error", made(LONG), ids=lambda error: type(error).__name__)
def test_no_error_exceeds_the_limit_of_the_contract(error: RouteError) -> None:
    status = rpc_status.from_call(error)
    assert status is not None
    assert trailers_size(status.message, tuple(error.trailing_metadata())) <= TRAILERS_LIMIT
    assert status.message == error.details()
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("grpcerrors", type(error).reason)
    retry = error_details_pb2.RetryInfo()
    said = any(detail.Unpack(retry) for detail in status.details)
    assert said is (error.retry_after is not None)
    assert classify(error).condition is None
    assert "grpcerrors-unexecuted" not in dict(tuple(error.trailing_metadata()))


@pytest.mark.parametrize("error", made("x") + made("é" * 5000), ids=lambda e: type(e).__name__)
def test_a_proxy_may_send_elsewhere_what_another_router_may_serve(error: RouteError) -> None:
    elsewhere = {"NO_CAPACITY", "OVERLOADED", "REGISTRY_UNAVAILABLE", "ROUTER_STOPPING"}
    plain = (("grpcerrors-unexecuted", error.reason),) if error.reason in elsewhere else ()
    assert error.unsent == (*error.trailing_metadata(), *plain)
    assert trailers_size(error.details() or "", error.unsent) <= TRAILERS_LIMIT


@pytest.mark.parametrize("error", made("x"), ids=lambda error: type(error).__name__)
def test_an_error_can_be_copied(error: RouteError) -> None:
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is type(error)
        assert (again.code(), again.details()) == (error.code(), error.details())
        assert tuple(again.trailing_metadata()) == tuple(error.trailing_metadata())
        assert (again.retry_after, again.unsent) == (error.retry_after, error.unsent)
        assert again.__traceback__ is None


@pytest.mark.parametrize("error", made("x"), ids=lambda error: type(error).__name__)
def test_each_says_what_to_do_in_one_line_of_its_docstring(error: RouteError) -> None:
    first = (type(error).__doc__ or "").partition("\n")[0]
    assert error.code().name in first or type(error) is errors.LoadFailed


@pytest.mark.parametrize("error", made("x"), ids=lambda error: type(error).__name__)
def test_explain_knows_each_reason_and_what_to_do(error: RouteError) -> None:
    text = explain(error)
    assert "does not know" not in text
    assert "nothing that the contract knows" not in text
    assert f"grpcerrors/{type(error).reason}" in text


async def test_a_long_load_error_reaches_the_caller_with_its_reason(tmp_path: Path) -> None:
    async with stack(tmp_path) as served:
        served.node.load_error = "Traceback: " + "x" * 8000
        # A client with gRPC's default limit on metadata, unlike `served.through`.
        async with grpc.aio.insecure_channel(served.address) as client:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await BackendStub(client).Predict(pb.PredictOptions(ModelIdentity="m"))
        error = caught.value
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "Traceback: xxxx" in (error.details() or "")
        assert "grpcerrors/LOAD_FAILED" in explain(error)
