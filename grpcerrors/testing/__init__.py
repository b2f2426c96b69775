"""Fakes and vectors with which authors of routers and backends test how they handle errors.

The Hypothesis strategies are in `grpcerrors.testing.strategies`, which needs the extra `testing`.
docs/how-to/testing.md shows how to use them.
"""

from __future__ import annotations

from grpcerrors.testing._contexts import Aborted, FakeAioContext, FakeContext
from grpcerrors.testing._errors import FakeRpcError
from grpcerrors.testing._vectors import BuildVector, DetectVector, Vectors, vectors

__all__ = [
    "Aborted",
    "BuildVector",
    "DetectVector",
    "FakeAioContext",
    "FakeContext",
    "FakeRpcError",
    "Vectors",
    "vectors",
]
