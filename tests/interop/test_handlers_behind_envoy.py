"""Which ways to refuse in a grpcio handler let Envoy send the call again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

import grpcerrors
from tests.interop.support import errors, ledgers
from tests.interop.support.proxies import BY_HANDLER, proxying

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.interop

ABORTS, SETS, SENDS = BY_HANDLER  # what each row calls its way


def refusal() -> grpcerrors.ContractError:
    return grpcerrors.model_not_loaded("rfdetr")


def set_code(context: Any) -> None:
    error = refusal()
    context.set_trailing_metadata(error.trailing_metadata)
    context.set_code(error.code)
    context.set_details(str(error))


def unary(request: StringValue, context: Any) -> StringValue:
    if request.value == SETS:
        set_code(context)
        return StringValue()
    if request.value == SENDS:
        context.send_initial_metadata(())
    result: StringValue = grpcerrors.abort(context, refusal())
    return result


def stream(request: StringValue, context: Any) -> Iterator[StringValue]:
    if request.value != SETS:
        unary(request, context)
    set_code(context)
    yield from ()


async def aio_unary(request: StringValue, context: Any) -> StringValue:
    if request.value == SETS:
        set_code(context)
        return StringValue()
    if request.value == SENDS:
        await context.send_initial_metadata(())
    result: StringValue = await grpcerrors.abort(context, refusal())
    return result


async def aio_stream(request: StringValue, context: Any) -> AsyncIterator[StringValue]:
    if request.value != SETS:
        await aio_unary(request, context)
    set_code(context)
    for each in list[StringValue]():
        yield each


@pytest.fixture(scope="module", params=["sync", "aio"])
def channel(request: pytest.FixtureRequest, good: str) -> Iterator[grpc.Channel]:
    if request.param == "sync":
        serving = errors.serving((unary, stream, unary, stream))
    else:
        serving = errors.serving_aio((aio_unary, aio_stream, aio_unary, aio_stream))
    with (
        serving as address,
        proxying("envoy", address, good) as target,
        grpc.insecure_channel(target) as channel,
    ):
        yield channel


@pytest.mark.parametrize(("shape", "column"), [("Unary", "unary"), ("ServerStream", "streaming")])
@pytest.mark.parametrize("handler", BY_HANDLER)
def test_a_handler_that_refuses(
    channel: grpc.Channel, ledger: ledgers.Ledger, handler: str, shape: str, column: str
) -> None:
    result = ledgers.call(channel, ledger, shape, handler)
    while not result.error and result.runs[0].attempt == 1:  # it met the other server first
        result = ledgers.call(channel, ledger, shape, handler)
    if result.error:
        assert grpcerrors.is_model_not_loaded(result.error)
        assert not result.runs
    assert ("intact" if result.error else "sent again") == BY_HANDLER[handler][column]
