"""The `ModelGuard` of `grpc.aio`. Everything else is in `grpcerrors` and works on both."""

from grpcerrors._guard.aio import ModelGuard

__all__ = ["ModelGuard"]
