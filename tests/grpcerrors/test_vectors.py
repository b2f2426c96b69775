from __future__ import annotations

import json

import pytest
from google.rpc import error_details_pb2, status_pb2

from grpcerrors import CATALOGUE, ContractError, Evidence, classify, held_model, is_model_not_loaded
from grpcerrors._wire import trailers_size
from grpcerrors.testing import BuildVector, DetectVector, vectors
from tests.grpcerrors.support import make_vectors

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
    (packed,) = status.details
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
    assert row.details == code + field(2, row.message.encode()) + field(3, any_)

    values = {name: metadata.get(name, "") for name in row.condition.fields}
    assert row.message == row.condition.message.format(**values)


@pytest.mark.parametrize("row", BUILD, ids=lambda row: row.name)
def test_what_is_built_is_what_the_vector_says(row: BuildVector) -> None:
    error = ContractError(row.condition, started=row.started, **row.fields)
    assert (error.code, error.details) == (row.code, row.message)
    assert error.trailing_metadata == (("grpc-status-details-bin", row.details),)
    assert trailers_size(error) <= 4096
    assert classify(error).condition == row.condition


@pytest.mark.parametrize("row", DETECT, ids=lambda row: row.name)
def test_what_is_detected_is_what_the_vector_says(row: DetectVector) -> None:
    verdict = classify(row.error())
    assert (verdict.condition, verdict.evidence) == (row.condition, row.evidence)
    assert held_model(row.error()) == row.held
    not_loaded = row.condition is not None and row.condition.reason == "MODEL_NOT_LOADED"
    assert is_model_not_loaded(row.error()) == not_loaded
