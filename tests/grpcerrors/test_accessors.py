"""Reading one attribute: cut to what matters, and what cannot be read spoils nothing else."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
from google.rpc import error_details_pb2
from grpc import StatusCode

import grpcerrors
from grpcerrors import _accessors
from grpcerrors._facts import survey
from grpcerrors._wire import ErrorInfo
from tests.grpcerrors.support import errors

TRAILERS = grpcerrors.model_not_loaded("x").trailing_metadata
([INFO], _) = _accessors.trailers(TRAILERS)
LIMIT = 16_384


class Code(Enum):
    """Codes of another library."""

    CANCELED = 1
    NOT_FOUND = 5
    TEAPOT = 418


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (StatusCode.NOT_FOUND, StatusCode.NOT_FOUND),
        (Code.NOT_FOUND, StatusCode.NOT_FOUND),
        (Code.CANCELED, StatusCode.CANCELLED),
        (Code.TEAPOT, None),
        (SimpleNamespace(name=["NOT_FOUND"]), None),
        (5, None),
        (None, None),
    ],
)
def test_a_code_is_known_by_its_name(given: object, code: StatusCode | None) -> None:
    assert _accessors.status_code(given) is code


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("boom", "boom"),
        (b"boom", "boom"),
        (b"\xffboom", "\ufffdboom"),
        ("x" * (LIMIT + 1), "x" * LIMIT),
        (b"x" * (LIMIT + 1), "x" * LIMIT),
        (7, ""),
        (None, ""),
    ],
    ids=["str", "bytes", "no UTF-8", "long str", "long bytes", "int", "None"],
)
def test_a_text_is_cut(given: object, text: str) -> None:
    assert _accessors.text(given) == text


@pytest.mark.parametrize(
    "value",
    [None, "text", 7, [], bytearray(TRAILERS[0][1])],
    ids=lambda value: type(value).__name__,
)
def test_a_trailer_that_is_no_bytes_spoils_nothing(value: Any) -> None:
    """The code and the text beside it are read."""
    metadata = ((errors.DETAILS_KEY, value),)
    assert _accessors.trailers(metadata) == ((), None)
    [facts] = survey(
        SimpleNamespace(code=StatusCode.OK, details="boom", trailing_metadata=metadata)
    )
    assert facts == (StatusCode.OK, "boom", (), (), None)


def test_a_thousand_pairs_of_metadata_are_enough() -> None:
    """More than that never came over a wire."""
    filler = (("key", b"value"),)
    assert _accessors.trailers(filler * 999 + TRAILERS) == ((INFO,), None)
    assert _accessors.trailers(filler * 1000 + TRAILERS) == ((), None)


def test_a_thousand_details_are_enough() -> None:
    """As with metadata."""
    [detail] = errors.packed([("d", "R")])
    assert len(_accessors.detail_infos([detail] * 1001)) == 1000


TYPE = "type.googleapis.com/google.rpc.ErrorInfo"


@pytest.mark.parametrize(
    ("details", "infos"),
    [
        ([error_details_pb2.ErrorInfo(domain="d", reason="R")], (ErrorInfo("d", "R", {}),)),
        (
            [{"@type": TYPE, "domain": "d", "reason": "R", "metadata": {"k": "v"}, "more": 1}],
            (ErrorInfo("d", "R", {"k": "v"}),),
        ),
        ([{"@type": TYPE, "reason": "R"}], (ErrorInfo("", "R", {}),)),
        ([{"@type": "type.googleapis.com/google.rpc.Help", "domain": "d", "reason": "R"}], ()),
        ([{"@type": TYPE, "domain": 7, "reason": "R"}], ()),
        ([{"domain": "d", "reason": "R"}], ()),
        ([error_details_pb2.RetryInfo(), None, 7, *errors.packed([("d", "R")])], (("d", "R", {}),)),
        (None, ()),
        (7, ()),
        ("boom", ()),
        (b"boom", ()),
    ],
)
def test_details_are_read_packed_or_not(details: Any, infos: tuple[ErrorInfo, ...]) -> None:
    """As google-api-core has them: messages, or JSON; what is none is left out."""
    assert _accessors.detail_infos(details) == infos
