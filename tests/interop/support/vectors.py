"""The rows of vectors.json and vectors.tsv, which all languages share."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

import grpcerrors

PATH = Path(grpcerrors.__file__).with_name("vectors.json")
FLAT_PATH = PATH.with_suffix(".tsv")
_ROWS = json.loads(PATH.read_text(encoding="utf-8"))
BUILD: dict[str, Any] = {row["name"]: row for row in _ROWS["build"]}
DETECT: dict[str, Any] = {row["name"]: row for row in _ROWS["detect"]}

CONDITIONS = {condition.reason: condition for condition in grpcerrors.CATALOGUE}
CODES = {code.value[0]: code for code in grpc.StatusCode}

_ESCAPED = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r", "0": "\0"}
_ESCAPES = str.maketrans({char: f"\\{name}" for name, char in _ESCAPED.items()})


def cells(line: str) -> list[str]:
    """Return the cells of a line of the flat form."""
    return [re.sub(r"\\(.)", lambda each: _ESCAPED[each[1]], cell) for cell in line.split("\t")]


def line(cells: list[str]) -> str:
    """Return a line of the flat form."""
    return "\t".join(cell.translate(_ESCAPES) for cell in cells)


def flat() -> list[list[str]]:
    """Return the cells of vectors.tsv, line by line."""
    return [cells(line) for line in FLAT_PATH.read_text(encoding="utf-8").rstrip("\n").split("\n")]


def unanswered(cells: list[str]) -> list[str]:
    """Return the cells of a line without what a program must find out."""
    match cells:
        case ["build", name, condition, started, retry_after, _code, _message, count, *rest]:
            fields = rest[2 * int(count) :]
            return ["build", name, condition, started, retry_after, "", "", "0", *fields]
        case ["detect", name, code, message, _, _, _, _, _, *trailers]:
            return ["detect", name, code, message, *[""] * 5, *trailers]
        case _:
            return cells


def details(details_hex: str) -> tuple[status_pb2.Status, list[Any]]:
    """Read details without grpcerrors; return the status without its details, and the details."""
    kinds = (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo)
    status = status_pb2.Status.FromString(bytes.fromhex(details_hex))
    unpacked = []
    for packed, kind in zip(status.details, kinds, strict=False):
        unpacked.append(kind())
        assert packed.Unpack(unpacked[-1]), packed.type_url
    assert len(unpacked) == len(status.details)
    del status.details[:]
    return status, unpacked
