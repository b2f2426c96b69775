"""The vectors of the contract, as Python objects. The file is for every language."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

import grpc

from grpcerrors._builtin import CATALOGUE
from grpcerrors._detect import Evidence
from grpcerrors._wire import DETAILS_KEY
from grpcerrors.testing._errors import FakeRpcError

if TYPE_CHECKING:
    from grpcerrors._condition import Condition

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_CONDITIONS = {condition.reason: condition for condition in CATALOGUE}


class BuildVector(NamedTuple):
    """An error as the contract builds it.

    Attributes:
        name: what is special about it.
        condition: what is wrong.
        fields: what the error was built with, before anything was cut.
        started: whether it is marked `started`.
        code: the status code.
        message: the status message.
        details: the value of grpc-status-details-bin.
        trailers: the trailers that follow it.
        retry_after: what the error was built with.
    """

    name: str
    condition: Condition
    fields: dict[str, str]
    started: bool
    code: grpc.StatusCode
    message: str
    details: bytes
    trailers: tuple[tuple[str, str], ...] = ()
    retry_after: float | None = None


class DetectVector(NamedTuple):
    """An error as a client receives it, and what it means.

    Attributes:
        name: what is special about it.
        code: the status code.
        message: the status message.
        details: the values of grpc-status-details-bin.
        condition: the condition that it means; None for none.
        evidence: the rung that decides; None if none does.
        trailers: trailers other than grpc-status-details-bin.
        held: what `held_model` returns.
        unexecuted: whether it proves that the request was not executed.
        retry_after: seconds to wait before the next attempt, if the sender names them.
    """

    name: str
    code: grpc.StatusCode
    message: str
    details: tuple[bytes, ...]
    condition: Condition | None
    evidence: Evidence | None
    trailers: tuple[tuple[str, str], ...] = ()
    held: str | None = None
    unexecuted: bool = False
    retry_after: float | None = None

    def error(self) -> FakeRpcError:
        """Return the error."""
        details = ((DETAILS_KEY, value) for value in self.details)
        return FakeRpcError(self.code, self.message, (*details, *self.trailers))


class Vectors(NamedTuple):
    """All vectors."""

    build: tuple[BuildVector, ...]
    detect: tuple[DetectVector, ...]


def vectors() -> Vectors:
    """Return the vectors that came with this version."""
    document = json.loads(files("grpcerrors").joinpath("vectors.json").read_text("utf-8"))
    build = (
        BuildVector(
            row["name"],
            _CONDITIONS[row["condition"]],
            row["fields"],
            row["started"],
            _CODES[row["code"]],
            row["message"],
            bytes.fromhex(row["details_hex"]),
            tuple((name, value) for name, value in row["trailers"]),
            row["retry_after"],
        )
        for row in document["build"]
    )
    detect = (
        DetectVector(
            row["name"],
            _CODES[row["code"]],
            row["message"],
            tuple(map(bytes.fromhex, row["details_hex"] or ())),
            row["condition"] and _CONDITIONS[row["condition"]],
            row["evidence"] and Evidence(row["evidence"]),
            tuple((name, value) for name, value in row["trailers"]),
            row["held"],
            row["unexecuted"],
            row["retry_after"],
        )
        for row in document["detect"]
    )
    return Vectors(tuple(build), tuple(detect))
