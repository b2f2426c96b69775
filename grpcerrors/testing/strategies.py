"""Hypothesis strategies: errors as clients receive them, from intact to mangled.

Each takes the condition that your code handles; its docstring says whether the errors mean the
condition. The errors are those of a sync channel (`FakeRpcError`) and of an aio one
(`grpc.aio.AioRpcError`); `wrapped` puts any of them inside other exceptions.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata

from grpcerrors._builtin import CATALOGUE, MODEL_NOT_LOADED
from grpcerrors._condition import Catalogue
from grpcerrors._error import ContractError
from grpcerrors._wire import DETAILS_KEY, UNEXECUTED_KEY, plain_trailer
from grpcerrors.testing._errors import FakeRpcError

try:
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "grpcerrors.testing.strategies needs hypothesis: pip install 'grpcerrors[testing]'",
        name=error.name,
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hypothesis.strategies import DrawFn, SearchStrategy

    from grpcerrors._condition import Condition

    Trailer = tuple[str, str | bytes]

__all__ = [
    "code_errors",
    "contract_errors",
    "damaged_errors",
    "text_errors",
    "trailer_errors",
    "typed_errors",
    "unrelated_errors",
    "vetoed_errors",
    "wrapped",
]

_FOREIGN = ("foreign.invalid", "QUOTA_EXCEEDED")  # RFC 2606: nobody can have this domain
# Codes whose messages quote user input, so that the words in them say nothing.
_QUOTING = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
)
_MEANINGLESS = tuple(
    code
    for code in grpc.StatusCode
    if code is not grpc.StatusCode.OK and CATALOGUE.by_code.get(code) is None
)

_groups: Any = getattr(builtins, "ExceptionGroup", None)  # Python 3.11
_cases: list[Callable[[str], str]] = [str, str.lower, str.upper]
_names = st.text(max_size=30)
_other_trailers: SearchStrategy[list[Trailer]] = st.lists(
    st.tuples(st.sampled_from(["x-request-id", "retry-pushback-ms"]), st.sampled_from(["7", "x"])),
    max_size=2,
)


class _Wire(NamedTuple):
    """The parts of an error that are sent."""

    code: grpc.StatusCode
    text: str
    details: tuple[bytes, ...] = ()
    plain: tuple[str, ...] = ()


@st.composite
def contract_errors(draw: DrawFn, condition: Condition = MODEL_NOT_LOADED) -> ContractError:
    """Errors of a condition as a backend builds them."""
    fields = {name: draw(_names) for name in condition.fields}
    retry_after = draw(st.none() | st.floats(0, 1e6))
    return ContractError(condition, started=draw(st.booleans()), retry_after=retry_after, **fields)


def typed_errors(condition: Condition = MODEL_NOT_LOADED) -> SearchStrategy[grpc.RpcError]:
    """Errors that arrive as they were sent. They mean the condition, by details."""
    return _met(_sent(condition))


def trailer_errors(condition: Condition = MODEL_NOT_LOADED) -> SearchStrategy[grpc.RpcError]:
    """Errors whose details were stripped. They mean the condition, by the plain trailer.

    Raises:
        ValueError: the condition does not prove that nothing was executed.
    """
    if not condition.unexecuted:
        raise ValueError(f"{condition.reason} has no plain trailer: it proves nothing")
    return _met(_stripped(condition))


def text_errors(condition: Condition = MODEL_NOT_LOADED) -> SearchStrategy[grpc.RpcError]:
    """Errors of backends without the contract, in words only. They mean the condition.

    Raises:
        ValueError: the condition is not known by the words of its message.
    """
    codes = _codes_of_words(condition)
    if not codes:
        raise ValueError(f"no dialect of {condition.reason} knows the words of its message")
    return _met(_said(condition, codes))


def code_errors(condition: Condition = MODEL_NOT_LOADED) -> SearchStrategy[grpc.RpcError]:
    """Errors with only the code. They mean the condition, but may mean something else.

    Raises:
        ValueError: the code alone does not mean the condition.
    """
    if not condition.code_alone:
        raise ValueError(f"{condition.code.name} alone does not mean {condition.reason}")
    return _met(_plain_texts(condition.code).map(lambda text: _Wire(condition.code, text)))


def damaged_errors(condition: Condition = MODEL_NOT_LOADED) -> SearchStrategy[grpc.RpcError]:
    """Errors that a proxy or an old client library has mangled. They still mean the condition.

    The details are stripped, doubled, truncated, replaced, contradicted or given another type
    prefix while the text or the plain trailer remains; or the text or the code is rewritten while
    the details or the plain trailer remain.
    """
    return _met(_damaged(condition))


def vetoed_errors(condition: Condition = MODEL_NOT_LOADED) -> SearchStrategy[grpc.RpcError]:
    """Errors that look like the condition, but whose trailers say otherwise. They do not mean it.

    Either the contract's own domain names another reason under the condition's code and words, in
    details or in the plain trailer; or another domain explains the bare code.
    """
    return _met(_vetoed(condition))


def unrelated_errors() -> SearchStrategy[grpc.RpcError]:
    """Errors that mean no condition: other codes, and messages that quote a condition's words."""
    plain = st.sampled_from(_MEANINGLESS).flatmap(
        lambda code: _plain_texts(code).map(lambda text: _Wire(code, text))
    )
    quoting = st.sampled_from(tuple(CATALOGUE)).flatmap(
        lambda condition: _worded(st.sampled_from(_QUOTING), condition)
    )
    return _met(plain | quoting)


@st.composite
def wrapped(draw: DrawFn, errors: SearchStrategy[grpc.RpcError]) -> BaseException:
    """Errors of `errors` inside others: as a cause, in a group (Python 3.11), or both."""
    error: BaseException = draw(errors)
    ways = [_caused, *([_grouped] if _groups else [])]
    for wrap in draw(st.lists(st.sampled_from(ways), min_size=1, max_size=4)):
        error = wrap(error)
    return error


def _caused(error: BaseException) -> BaseException:
    outer = RuntimeError("the request failed")
    outer.__cause__ = error
    return outer


def _grouped(error: BaseException) -> BaseException:
    group: BaseException = _groups("some requests failed", [ValueError("another"), error])
    return group


@st.composite
def _met(draw: DrawFn, wires: SearchStrategy[_Wire]) -> grpc.RpcError:
    """Turn what is sent into what a sync or an aio client catches."""
    wire = draw(wires)
    trailers = [*draw(_other_trailers), *((DETAILS_KEY, value) for value in wire.details)]
    trailers += ((UNEXECUTED_KEY, value) for value in wire.plain)
    if draw(st.booleans()):
        return AioRpcError(wire.code, Metadata(), Metadata(*trailers), wire.text)
    return FakeRpcError(wire.code, wire.text, trailers)


def _sent(condition: Condition) -> SearchStrategy[_Wire]:
    return contract_errors(condition).map(_wire_of)


def _wire_of(error: ContractError) -> _Wire:
    trailers: dict[str, Any] = dict(error.trailing_metadata)
    details = (trailers.pop(DETAILS_KEY),)
    return _Wire(error.code, error.details, details, tuple(trailers.values()))


@st.composite
def _stripped(draw: DrawFn, condition: Condition) -> _Wire:
    wire = draw(_sent(condition).filter(lambda wire: bool(wire.plain)))
    code = draw(st.sampled_from([wire.code, *_MEANINGLESS]))
    details = draw(st.sampled_from([(), (b"",), (_explained(code, *_FOREIGN),)]))
    return _Wire(code, draw(_plain_texts(code) | st.just(wire.text)), details, wire.plain)


@st.composite
def _texts(draw: DrawFn, condition: Condition) -> str:
    """The condition's message, in any letter case and with any known prefix."""
    text = condition.message.format_map({name: draw(_names) for name in condition.fields})
    case = draw(st.sampled_from(_cases))
    return draw(st.sampled_from(["", "rpc error: ", "Exception calling application: "])) + case(
        text
    )


def _worded(codes: SearchStrategy[grpc.StatusCode], condition: Condition) -> SearchStrategy[_Wire]:
    return st.tuples(codes, _texts(condition)).map(lambda sent: _Wire(*sent))


def _codes_of_words(condition: Condition) -> list[grpc.StatusCode]:
    text = condition.message.format_map(dict.fromkeys(condition.fields, "x"))
    return [code for code in grpc.StatusCode if _means(condition, text, code)]


def _means(condition: Condition, text: str, code: grpc.StatusCode) -> bool:
    found = Catalogue(condition, *CATALOGUE).by_words(text, code)
    return found is not None and found[0] == condition


def _said(condition: Condition, codes: list[grpc.StatusCode]) -> SearchStrategy[_Wire]:
    # A name may happen to contain the words of another condition.
    return _worded(st.sampled_from(codes), condition).filter(
        lambda wire: _means(condition, wire.text, wire.code)
    )


def _plain_texts(code: grpc.StatusCode) -> SearchStrategy[str]:
    """Texts that mean nothing under `code`."""
    usual = ["", "internal error", "quota exceeded", "connection refused", "Deadline Exceeded"]
    return (st.sampled_from(usual) | _names).filter(
        lambda text: CATALOGUE.by_words(text, code) is None
    )


@st.composite
def _damaged(draw: DrawFn, condition: Condition) -> _Wire:
    wire = draw(_sent(condition))
    (details,) = wire.details
    kept: list[tuple[bytes, ...]] = [
        (details, details),
        (_prefixed(details, draw(st.sampled_from(["", "x.org/"]))),),
    ]
    lost: list[tuple[bytes, ...]] = [
        (),
        (b"",),
        (draw(st.binary(min_size=1, max_size=20).map(lambda tail: b"\xff" + tail)),),
        (details[: draw(st.integers(1, len(details) - 1))],),
        (details, draw(_sent(condition)).details[0] + b"\x12\x00"),
        (_explained(condition.code, *_FOREIGN),),
    ]
    if draw(st.booleans()) and _means(condition, wire.text, wire.code):
        plain = draw(st.sampled_from([(), wire.plain, wire.plain * 2]))
        return _Wire(wire.code, wire.text, draw(st.sampled_from(kept + lost)), plain)
    if condition.unexecuted and draw(st.booleans()):
        return draw(_stripped(condition))
    code = draw(st.sampled_from([wire.code, *_MEANINGLESS]))
    return _Wire(code, draw(_plain_texts(code)), draw(st.sampled_from(kept)))


def _prefixed(details: bytes, prefix: str) -> bytes:
    status = status_pb2.Status.FromString(details)
    for detail in status.details:
        detail.type_url = prefix + detail.type_url.rpartition("/")[2]
    return status.SerializeToString(deterministic=True)


def _explained(
    code: grpc.StatusCode, domain: str, reason: str, metadata: Mapping[str, str] | None = None
) -> bytes:
    info = error_details_pb2.ErrorInfo(domain=domain, reason=reason, metadata=metadata or {})
    packed = any_pb2.Any(
        type_url="type.googleapis.com/google.rpc.ErrorInfo",
        value=info.SerializeToString(deterministic=True),
    )
    status = status_pb2.Status(code=code.value[0], details=[packed])
    return status.SerializeToString(deterministic=True)


@st.composite
def _vetoed(draw: DrawFn, condition: Condition) -> _Wire:
    reasons = [each.reason for each in CATALOGUE if each != condition]
    reason = draw(st.sampled_from([*reasons, "FROM_A_LATER_VERSION"]))
    ours = _explained(condition.code, condition.domain, reason)
    foreign = _explained(condition.code, *_FOREIGN)
    with_words = _Wire(condition.code, draw(_texts(condition)), (ours,))
    plain = plain_trailer(condition.domain, reason)[1]
    in_plain = _Wire(condition.code, draw(_texts(condition)), (), (plain,))
    bare = _Wire(condition.code, draw(_plain_texts(condition.code)), (foreign,))
    chosen: _Wire = draw(st.sampled_from([with_words, in_plain, bare]))
    return chosen
