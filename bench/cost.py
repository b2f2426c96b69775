"""`python -m bench.cost`: the time to classify an error, compared with other libraries.

Machines differ, so the result is a ratio within one run. Each figure is the best of many rounds.
The rounds alternate with those of the peer, so that noise affects both.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import timeit
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import grpc
from google.api_core.exceptions import from_grpc_error
from grpc import StatusCode
from rich.console import Console
from rich.table import Table

import grpcerrors
from tests.grpcerrors.support import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ROUNDS = 40
_CALLS = 500
_IMPORTS = 15


class Ratio(NamedTuple):
    """One comparison: our time and the peer's in seconds, and the limit of their ratio."""

    name: str
    ours: float
    peer: float
    peer_name: str
    promise: str


def _best(*calls: Callable[[], object]) -> list[float]:
    """Return the best time of each call in seconds; the calls alternate."""
    rounds = [
        [timeit.timeit(call, number=_CALLS) / _CALLS for call in calls] for _ in range(_ROUNDS)
    ]
    return [min(each) for each in zip(*rounds, strict=True)]


def _against_api_core(name: str, err: object, promise: str) -> Ratio:
    ours, peer = _best(lambda: grpcerrors.classify(err), lambda: from_grpc_error(err))
    return Ratio(name, ours, peer, "api-core from_grpc_error", promise)


def _never_seen(make: Callable[[str], object], promise: str) -> Ratio:
    """Classify errors that all differ, so that no cache helps."""

    def seconds(classify: Callable[[object], object], batch: Sequence[object]) -> float:
        begun = time.perf_counter()
        for err in batch:
            classify(err)
        return (time.perf_counter() - begun) / len(batch)

    ours, peer = [], []
    for number in range(_ROUNDS):
        batch = [make(f"backend-{number}-{n}") for n in range(_CALLS)]
        ours.append(seconds(grpcerrors.classify, batch))
        peer.append(seconds(from_grpc_error, batch))
    name = "a new error with details"
    return Ratio(name, min(ours), min(peer), "api-core from_grpc_error", promise)


def _received(backend: str) -> object:
    error = grpcerrors.model_not_loaded(backend, model="tiny.en")
    return errors.sync_error(error.code, error.details, error.trailing_metadata)


def _unrelated() -> Ratio:
    err = ValueError("something went wrong")
    ours, peer = _best(
        lambda: grpcerrors.is_model_not_loaded(err), lambda: isinstance(err, grpc.RpcError)
    )
    return Ratio("an unrelated exception", ours, peer, "isinstance(err, RpcError)", "<= 20")


# Processor time, so that other programs hardly matter; grpcerrors imports grpc first.
_IMPORT = """
import time
begun = time.process_time()
import grpc
peer = time.process_time() - begun
import grpcerrors
print(time.process_time() - begun, peer)
"""


def _imports() -> Ratio:
    """Import from bytecode, as an installed package is; the first process writes it."""
    command = [sys.executable, "-c", _IMPORT]
    with tempfile.TemporaryDirectory() as bytecode:
        environment = os.environ | {"PYTHONPYCACHEPREFIX": bytecode}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        run = partial(subprocess.run, env=environment, check=True, capture_output=True, text=True)
        rounds = [map(float, run(command).stdout.split()) for _ in range(_IMPORTS)]
    ours, peer = (min(each) for each in zip(*rounds, strict=True))
    return Ratio("import, inside a new process", ours, peer, "import grpc", "<= 1.20")


def main() -> None:
    """Print the table."""
    ratios = [
        _against_api_core("an error with details", _received("parakeet-cpp"), "<= 0.20"),
        _never_seen(_received, "-"),
        _against_api_core(
            "an error without details",
            errors.sync_error(StatusCode.FAILED_PRECONDITION, "x: model not loaded"),
            "<= 0.40",
        ),
        _against_api_core(
            "an unrelated RPC error",
            errors.sync_error(StatusCode.UNAVAILABLE, "failed to connect to all addresses"),
            "<= 0.40",
        ),
        _unrelated(),
        _imports(),
    ]
    table = Table("classifying", "ours, µs", "peer, µs", "peer", "ratio", "target")
    for each in ratios:
        figures = (f"{each.ours * 1e6:,.2f}", f"{each.peer * 1e6:,.2f}", each.peer_name)
        table.add_row(each.name, *figures, f"{each.ours / each.peer:.2f}", each.promise)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
