"""The rows of vectors.json, which all languages share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

import grpcerrors

PATH = Path(grpcerrors.__file__).with_name("vectors.json")
_ROWS = json.loads(PATH.read_text(encoding="utf-8"))
BUILD: dict[str, Any] = {row["name"]: row for row in _ROWS["build"]}
DETECT: dict[str, Any] = {row["name"]: row for row in _ROWS["detect"]}

CONDITIONS = {condition.reason: condition for condition in grpcerrors.CATALOGUE}
CODES = {code.value[0]: code for code in grpc.StatusCode}


def error_info(details_hex: str) -> tuple[status_pb2.Status, error_details_pb2.ErrorInfo]:
    """Read details without grpcerrors; return the status without them, and the ErrorInfo."""
    status = status_pb2.Status.FromString(bytes.fromhex(details_hex))
    packed = status.details[0]
    info = error_details_pb2.ErrorInfo()
    assert packed.Unpack(info), f"{packed.type_url} is no ErrorInfo"
    del status.details[:]
    return status, info


def is_cut(row: dict[str, Any]) -> bool:
    """Return whether the library truncated the fields of a row; other languages do not."""
    _, info = error_info(row["details_hex"])
    return any(info.metadata[name] != value for name, value in row["fields"].items())
