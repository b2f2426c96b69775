from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from google.rpc import error_details_pb2, status_pb2

from grpcerrors import CATALOGUE, ContractError, Evidence, classify, held_model, is_model_not_loaded
from grpcerrors._wire import trailers_size
from grpcerrors.testing import BuildVector, DetectVector, vectors
from tests.grpcerrors.support import make_vectors
from tests.grpcerrors.support.flat_vectors import flat

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILD, DETECT = vectors()


def field(number: int, value: bytes) -> bytes:
    """A length-delimited field of the protobuf wire format."""
    return bytes([number << 3 | 2]) + varint(len(value)) + value


def varint(value: int) -> bytes:
    head = b""
    while value > 0x7F:
        head += bytes([value & 0x7F | 0x80])
        value >>= 7
    return head + bytes([value])


def entry(key: str, value: str) -> bytes:
    """One entry of ErrorInfo.metadata."""
    return field(3, field(1, key.encode()) + field(2, value.encode()))


def test_the_file_is_what_its_rows_make() -> None:
    committed = json.loads(make_vectors.PATH.read_text("ascii"))
    assert committed == make_vectors.rows(), "python -m tests.grpcerrors.support.make_vectors"
    written = make_vectors.FLAT_PATH.read_bytes().decode()
    assert written == flat(committed), "python -m tests.grpcerrors.support.make_vectors"


_ESCAPED = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r", "0": "\0"}


def unescaped(cell: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPED[found[1]], cell)


def pairs(cells: Iterator[str]) -> list[tuple[str, str]]:
    """A count, and so many names and values."""
    return [(next(cells), next(cells)) for _ in range(int(next(cells)))]


def test_the_flat_form_can_be_read_with_split_and_a_few_escapes() -> None:
    """As CONTRACT.md says, without a JSON library; it holds all that the vectors hold."""
    lines = make_vectors.FLAT_PATH.read_text("utf-8").split("\n")
    assert lines.pop() == ""
    build, detect = [], []
    for line in lines:
        kind, *cells = map(unescaped, line.split("\t"))
        if kind.startswith("#"):
            continue
        rest = iter(cells)
        if kind == "build":
            row = [next(rest) for _ in range(6)]
            trailers, fields = pairs(rest), pairs(rest)
            build.append((*row, trailers, fields))
        else:
            row = [next(rest) for _ in range(8)]
            detect.append((*row, pairs(rest)))
        assert list(rest) == []
    assert build == [
        (
            row.name,
            row.condition.reason,
            str(int(row.started)),
            "" if row.retry_after is None else f"{row.retry_after:g}",
            str(row.code.value[0]),
            row.message,
            [("grpc-status-details-bin", row.details.hex()), *row.trailers],
            list(row.fields.items()),
        )
        for row in BUILD
    ]
    assert detect == [
        (
            row.name,
            str(row.code.value[0]),
            row.message,
            row.condition.reason if row.condition else "",
            row.evidence.value if row.evidence else "",
            str(int(row.unexecuted)),
            "" if row.retry_after is None else f"{row.retry_after:g}",
            row.held or "",
            [*(("grpc-status-details-bin", each.hex()) for each in row.details), *row.trailers],
        )
        for row in DETECT
    ]


def test_the_names_of_rows_are_unique() -> None:
    for rows in (BUILD, DETECT):
        assert len({row.name for row in rows}) == len(rows)


def test_each_condition_is_built_and_each_evidence_detected() -> None:
    assert {row.condition for row in BUILD} == set(CATALOGUE)
    assert {row.condition for row in DETECT} == {*CATALOGUE, None}
    assert {row.evidence for row in DETECT} == {*Evidence, None}


@pytest.mark.parametrize("row", BUILD, ids=lambda row: row.name)
def test_the_bytes_are_what_the_contract_states(row: BuildVector) -> None:
    """Assembled by hand from CONTRACT.md, with the values that survived cutting."""
    status = status_pb2.Status.FromString(row.details)
    packed = status.details[0]
    info = error_details_pb2.ErrorInfo.FromString(packed.value)
    metadata = dict(info.metadata)
    cut = {name for name, value in metadata.items() if value != row.fields.get(name)} - {"started"}
    assert bool(cut) == row.name.endswith("cut")
    for name in cut:
        assert row.fields[name].startswith(metadata[name])
    assert metadata.get("started") == ("true" if row.started else None)
    assert set(metadata) - {"started"} == {name for name, value in row.fields.items() if value}

    by_hand = field(1, row.condition.reason.encode()) + field(2, b"grpcerrors")
    for key in sorted(metadata):
        by_hand += entry(key, metadata[key])
    any_ = field(1, b"type.googleapis.com/google.rpc.ErrorInfo") + field(2, by_hand)
    code = b"\x08" + varint(row.code.value[0])
    if row.retry_after is not None:
        seconds, nanos = divmod(round(row.retry_after * 1e9), 10**9)
        delay = b"\x08" * bool(seconds) + varint(seconds) * bool(seconds)
        delay += b"\x10" * bool(nanos) + varint(nanos) * bool(nanos)
        url = b"type.googleapis.com/google.rpc.RetryInfo"
        retry = field(3, field(1, url) + field(2, field(1, delay)))
    else:
        retry = b""
    assert row.details == code + field(2, row.message.encode()) + field(3, any_) + retry
    assert row.trailers == (
        () if row.started else (("grpcerrors-unexecuted", row.condition.reason),)
    )

    values = {name: metadata.get(name, "") for name in row.condition.fields}
    assert row.message == row.condition.message.format(**values)


@pytest.mark.parametrize("row", BUILD, ids=lambda row: row.name)
def test_what_is_built_is_what_the_vector_says(row: BuildVector) -> None:
    fields: dict[str, Any] = dict(row.fields)
    error = ContractError(row.condition, started=row.started, retry_after=row.retry_after, **fields)
    assert (error.code, error.details) == (row.code, row.message)
    assert error.trailing_metadata == (("grpc-status-details-bin", row.details), *row.trailers)
    assert trailers_size(error.details, error.trailing_metadata) <= 4096
    verdict = classify(error)
    assert verdict.condition == row.condition
    assert verdict.retry_after == row.retry_after
    assert verdict.unexecuted is bool(row.trailers)


@pytest.mark.parametrize("row", DETECT, ids=lambda row: row.name)
def test_what_is_detected_is_what_the_vector_says(row: DetectVector) -> None:
    verdict = classify(row.error())
    assert (verdict.condition, verdict.evidence) == (row.condition, row.evidence)
    assert (verdict.unexecuted, verdict.retry_after) == (row.unexecuted, row.retry_after)
    assert verdict.typed is (row.evidence in (Evidence.DETAILS, Evidence.TRAILER))
    assert held_model(row.error()) == row.held
    not_loaded = row.condition is not None and row.condition.reason == "MODEL_NOT_LOADED"
    assert is_model_not_loaded(row.error()) == not_loaded
