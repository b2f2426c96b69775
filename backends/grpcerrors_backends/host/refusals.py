"""Why the control plane refuses a call, as conditions of the contract."""

from __future__ import annotations

from typing import Final

import grpc

from grpcerrors import Condition

INVALID_METADATA: Final = Condition(
    reason="INVALID_METADATA",
    code=grpc.StatusCode.INVALID_ARGUMENT,
    message="{backend}: {problem}",
    unexecuted=True,
)
"""A metadata value cannot be what its key stands for."""

SUPERSEDED_LOAD: Final = Condition(
    reason="SUPERSEDED_LOAD",
    code=grpc.StatusCode.FAILED_PRECONDITION,
    message="{backend}: {problem}",
    unexecuted=True,
)
"""A LoadModel was overtaken by one with a higher generation of the same model."""

SLOTS_BUSY: Final = Condition(
    reason="SLOTS_BUSY",
    code=grpc.StatusCode.RESOURCE_EXHAUSTED,
    message="{backend}: {problem}",
    unexecuted=True,
)
"""A LoadModel found no slot within its deadline, or too many others are waiting."""
