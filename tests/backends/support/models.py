"""Hosts with real models, and checks of their answers to bad input."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors_backends.registry import MissingExtraError, find
from grpcerrors_protocol import backend_pb2 as pb

from .hosting import PATIENCE, READY, HostProcess, host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from grpcerrors_backends.model import Model

ASSETS = Path(__file__).parents[2] / "assets"
INVALID, MISSING, LARGE = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


def find_or_skip(name: str) -> type[Model]:
    """Return the class of the backend *name*; skip the test if an extra is not installed."""
    try:
        return find(name)
    except MissingExtraError as error:
        pytest.skip(str(error))


def load(process: HostProcess, *options: str, **fields: Any) -> None:
    """Load model "m"; skip the test if its weights are not installed."""
    request = pb.ModelOptions(Model="m", Options=options, **fields)
    result = process.stub.LoadModel(request, timeout=PATIENCE)
    if "install" in result.message:
        pytest.skip(result.message)
    assert result.success, result.message


@contextlib.contextmanager
def loaded(
    name: str, *options: str, arguments: Sequence[object] = (), **fields: Any
) -> Iterator[HostProcess]:
    """Run a host with a model of the backend *name*; skip the test if an extra is missing."""
    find_or_skip(name)
    # Two slots, so that a load that fails need not evict the model.
    with host(name, "--slots", 2, *arguments) as process:
        load(process, *options, **fields)
        yield process


def refused(
    process: HostProcess,
    code: grpc.StatusCode,
    words: str,
    call: Callable[..., object],
    *arguments: Any,
    **fields: Any,
) -> None:
    """Expect *call* to fail with *code* and a text with *words*; the model stays loaded."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **fields)
    error: Any = caught.value
    assert error.code() is code, error
    assert words in error.details()
    assert "Traceback" not in error.details()
    assert process.status("m").state == READY


def load_refused(process: HostProcess, words: str, *options: str, **fields: Any) -> None:
    """Expect a load to fail with a text that says what to do."""
    request = pb.ModelOptions(Model="other", Options=options, **fields)
    result = process.stub.LoadModel(request, timeout=PATIENCE)
    assert not result.success
    assert words in result.message
