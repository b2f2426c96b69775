"""Conditions with which a host refuses a call."""

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
"""A metadata value is invalid for its key."""

INVALID_REQUEST: Final = Condition(
    reason="INVALID_REQUEST",
    code=grpc.StatusCode.INVALID_ARGUMENT,
    message="{backend}: {problem}",
    unexecuted=True,
)
"""A request of the control plane lacks something."""

LOAD_FAILED: Final = Condition(
    reason="LOAD_FAILED",
    code=grpc.StatusCode.INVALID_ARGUMENT,
    message="{backend}: {problem}",
)
"""A load failed over a protocol whose response cannot say so. Triton uses the same code."""

OVERLOADED: Final = Condition(
    reason="OVERLOADED",
    code=grpc.StatusCode.RESOURCE_EXHAUSTED,
    message="{backend}: {problem}",
    unexecuted=True,
)
"""The host is at a limit. A router's error has the same name."""

SUPERSEDED_LOAD: Final = Condition(
    reason="SUPERSEDED_LOAD",
    code=grpc.StatusCode.FAILED_PRECONDITION,
    message="{backend}: {problem}",
    unexecuted=True,
)
"""A LoadModel arrived after one of the same model with a higher generation."""

SLOTS_BUSY: Final = Condition(
    reason="SLOTS_BUSY",
    code=grpc.StatusCode.RESOURCE_EXHAUSTED,
    message="{backend}: {problem}",
    unexecuted=True,
)
"""A LoadModel got no slot within its deadline, or too many loads are waiting."""

UNAUTHENTICATED: Final = Condition(
    reason="UNAUTHENTICATED",
    code=grpc.StatusCode.UNAUTHENTICATED,
    message="{backend}: {problem}",
)
"""A call has no valid token. It was not executed, but no other node would accept it either."""
