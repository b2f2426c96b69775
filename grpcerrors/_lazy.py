"""What is imported when it is first needed."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


@cache
def wire() -> ModuleType:
    """Import protobuf with the first error: it takes half as long as importing grpc itself."""
    from grpcerrors import _wire  # noqa: PLC0415

    return _wire
