"""What differs on `grpc.aio`: its `ModelGuard`. All else is in `grpcerrors`, and works on both."""

from __future__ import annotations

from grpcerrors._guard.aio import ModelGuard

__all__ = ["ModelGuard"]
