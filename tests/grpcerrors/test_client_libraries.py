"""What each client library shows a receiver of the same errors, from real servers of two kinds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from google.api_core.exceptions import GoogleAPICallError
from google.api_core.grpc_helpers import wrap_errors
from google.rpc import error_details_pb2  # noqa: F401 - grpclib decodes details of imported types
from grpc import RpcError, StatusCode

import grpcerrors
from grpcerrors import MODEL_LOADING, MODEL_NOT_LOADED, Condition, Evidence, classify, held_model
from tests.grpcerrors.support import connect, errors
from tests.grpcerrors.support.serving import TIMEOUT, UNARY, Answer, Client, Raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Call = Callable[[str, Answer], Exception]

FAILED, UNKNOWN = StatusCode.FAILED_PRECONDITION, StatusCode.UNKNOWN
SAID = "x: model not loaded"
OURS = grpcerrors.model_not_loaded("x", model="m")
BEGUN = grpcerrors.model_not_loaded("x", started=True)
LOADING = grpcerrors.model_loading("x", retry_after=2.5)
FOREIGN = errors.status(FAILED, "no", ("example.com", "QUOTA"))
UNHEARD_OF = errors.status(FAILED, SAID, ("grpcerrors", "FROM_2030"))


class Seen(NamedTuple):
    """What `classify` and `held_model` say of an error."""

    condition: Condition | None = None
    evidence: Evidence | None = None
    unexecuted: bool = False
    retry_after: float | None = None
    held: str | None = None

    @classmethod
    def of(cls, err: object) -> Seen:
        verdict = classify(err)
        return cls(*verdict[:2], verdict.unexecuted, verdict.retry_after, held_model(err))


class Case(NamedTuple):
    """An error, what a receiver sees of it, and what one sees whose library hides the trailers."""

    answer: Answer
    seen: Seen
    without_trailers: Seen | None = None


def _sent(error: grpcerrors.ContractError) -> Answer:
    return Answer(error.code, error.details, error.trailing_metadata)


BY_CODE = Seen(MODEL_NOT_LOADED, Evidence.CODE)
BY_WORDS = Seen(MODEL_NOT_LOADED, Evidence.TEXT, unexecuted=True)
CASES = {
    "ours": Case(_sent(OURS), Seen(MODEL_NOT_LOADED, Evidence.DETAILS, unexecuted=True)),
    "ours, details stripped": Case(
        Answer(FAILED, "no", OURS.trailing_metadata[1:]),
        Seen(MODEL_NOT_LOADED, Evidence.TRAILER, unexecuted=True),
        BY_CODE,
    ),
    "ours, begun": Case(_sent(BEGUN), Seen(MODEL_NOT_LOADED, Evidence.DETAILS)),
    "ours, loading": Case(
        _sent(LOADING), Seen(MODEL_LOADING, Evidence.DETAILS, unexecuted=True, retry_after=2.5)
    ),
    "ours, of a later version": Case(
        Answer(FAILED, SAID, errors.trailers(UNHEARD_OF)), Seen(evidence=Evidence.DETAILS)
    ),
    "foreign details": Case(Answer(FAILED, "no", errors.trailers(FOREIGN)), Seen()),
    "words": Case(Answer(UNKNOWN, SAID), BY_WORDS),
    "code": Case(Answer(FAILED, "no"), BY_CODE),
    "held": Case(
        Answer(UNKNOWN, SAID, (("grpcerrors-held", "tiny%20en"),)), Seen(held="tiny en"), BY_WORDS
    ),
}


def _grpc_sync(target: str, answer: Answer) -> Exception:
    with Client(target) as client:
        return client.sync_failure(answer)


def _grpc_aio(target: str, answer: Answer) -> Exception:
    with Client(target) as client:
        return client.aio_failure(answer)


def _api_core(target: str, answer: Answer) -> Exception:
    def call() -> None:
        raise _grpc_sync(target, answer)

    call.__wrapped__ = call  # type: ignore[attr-defined] # as a stub's method, it is no function
    try:
        wrap_errors(call)()
    except GoogleAPICallError as err:
        failure: Exception = err
        return failure
    raise AssertionError


def _grpclib(target: str, answer: Answer) -> Exception:
    grpclib: Any = pytest.importorskip("grpclib.client")

    async def call(channel: Any) -> None:
        await grpclib.UnaryUnaryMethod(channel, UNARY, Raw, Raw)(
            Raw(answer.dump()), timeout=TIMEOUT
        )

    return asyncio.run(_over_grpclib(target, call))


def _betterproto(target: str, answer: Answer) -> Exception:
    betterproto: Any = pytest.importorskip("betterproto2.grpclib.grpclib_client")

    class Stub(betterproto.ServiceStub):
        async def unary(self) -> None:
            await self._unary_unary(UNARY, Raw(answer.dump()), Raw, timeout=TIMEOUT)

    return asyncio.run(_over_grpclib(target, lambda channel: Stub(channel).unary()))


async def _over_grpclib(target: str, call: Callable[[Any], Any]) -> Exception:
    import grpclib.client  # noqa: PLC0415 - it may be missing
    import grpclib.exceptions  # noqa: PLC0415

    host, port = target.split(":")
    channel = grpclib.client.Channel(host, int(port))
    try:
        await call(channel)
    except grpclib.exceptions.GRPCError as err:
        failure: Exception = err
        return failure
    finally:
        channel.close()
    raise AssertionError


def _connect(protocol: str, *, keep_trailers: bool) -> Call:
    return lambda target, answer: connect.failure(
        target, protocol, answer, keep_trailers=keep_trailers
    )


class Library(NamedTuple):
    """How to call with one, whether its errors hide the trailers, and which servers it reaches."""

    call: Call
    hides_trailers: bool = False
    servers: tuple[str, ...] = ("grpcio", "Connect")


LIBRARIES = {
    "grpcio": Library(_grpc_sync),
    "grpcio, aio": Library(_grpc_aio),
    "google-api-core": Library(_api_core),
    "grpclib": Library(_grpclib, hides_trailers=True),
    "betterproto2": Library(_betterproto, hides_trailers=True),
}
for _name in connect.PROTOCOLS:
    _servers = ("grpcio", "Connect") if _name == "grpc" else ("Connect",)
    for _keep in (False, True):
        LIBRARIES[f"{connect.NAME}, {_name}{', trailers kept' * _keep}"] = Library(
            _connect(_name, keep_trailers=_keep), not _keep, _servers
        )


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, str]]:
    """Run a server of each kind."""
    with Answer.serve() as grpcio, connect.serve() as connected:
        yield {"grpcio": grpcio, "Connect": connected}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    ("library", "server"),
    [
        pytest.param(library, server, id=f"{name} to {server}")
        for name, library in LIBRARIES.items()
        for server in library.servers
    ],
)
def test_an_error_means_the_same(
    targets: dict[str, str], library: Library, server: str, case: Case
) -> None:
    seen = Seen.of(library.call(targets[server], case.answer))
    hidden = case.without_trailers if library.hides_trailers else None
    assert seen == (hidden or case.seen)


def test_an_error_that_grpclib_cannot_decode_says_nothing() -> None:
    """It may be one of ours whose handler had begun, so its words must not count."""
    grpclib: Any = pytest.importorskip("grpclib.encoding.proto")
    exceptions: Any = pytest.importorskip("grpclib.exceptions")
    const: Any = pytest.importorskip("grpclib.const")
    unknown = grpclib._Unknown("google.rpc.ErrorInfo")
    err = exceptions.GRPCError(const.Status.FAILED_PRECONDITION, SAID, [unknown])
    assert Seen.of(err) == Seen(evidence=Evidence.DETAILS)


def test_the_plain_grpc_error_is_an_rpc_error(targets: dict[str, str]) -> None:
    """Else the table would compare one library with itself."""
    kinds = [
        type(library.call(targets["Connect"], CASES["ours"].answer))
        for library in LIBRARIES.values()
    ]
    assert len(set(kinds)) == 5
    assert sum(issubclass(kind, RpcError) for kind in kinds) == 2
