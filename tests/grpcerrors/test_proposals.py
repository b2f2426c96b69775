"""What docs/proposals/ says of this library is true, and its code works."""

from __future__ import annotations

import re

from google.rpc import error_details_pb2, status_pb2

import grpcerrors
import grpcerrors.aio
from tests.grpcerrors.support.make_proposals import PATH, PROPOSALS, REASONS, errors, text

OIP = (PROPOSALS / "open-inference-protocol.md").read_text()
LOCALAI = (PROPOSALS / "localai.md").read_text()


def test_the_conformance_data_is_that_of_the_vectors() -> None:
    assert PATH.read_text() == text()
    assert {row["reason"] for row in errors()["errors"]} == set(REASONS)


def test_the_conformance_data_can_be_read_without_this_library() -> None:
    for row in errors()["errors"]:
        status = status_pb2.Status.FromString(bytes.fromhex(row["details_hex"]))
        assert (status.code, status.message) == (row["code"], row["message"])
        info, *others = status.details
        said = error_details_pb2.ErrorInfo.FromString(info.value)
        assert (said.domain, said.reason) == (errors()["domain"], row["reason"])
        assert dict(said.metadata) == row["metadata"]
        assert bool(others) is (row["retry_delay_seconds"] is not None)


def test_the_table_has_the_codes_of_the_catalogue() -> None:
    rows = re.findall(r"^\| .* \| ([A-Z_]+) \| `([A-Z_]+)` \|", OIP, re.MULTILINE)
    codes = {reason: code for code, reason in rows}
    ours = {each.reason: each.code.name for each in grpcerrors.CATALOGUE if each.reason in REASONS}
    assert ours.keys() == set(REASONS)
    assert ours.items() <= codes.items()


def test_the_helper_for_localai_names_the_guard_after_the_backend() -> None:
    definition, appended = re.findall(r"^```python\n(.*?)^```", LOCALAI, re.DOTALL | re.MULTILINE)
    assert appended.count("_guard(aio=aio)") == 2
    names: dict[str, object] = {}
    exec(definition, names)
    make = names["_guard"]
    assert callable(make)
    assert isinstance(make(aio=False), grpcerrors.ModelGuard)
    assert isinstance(make(aio=True), grpcerrors.aio.ModelGuard)
