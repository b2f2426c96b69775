"""The bytes of the requests that a host is serving."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from grpcerrors import ContractError
from grpcerrors_backends.host.refusals import OVERLOADED

if TYPE_CHECKING:
    from collections.abc import Iterator


class Requests:
    """Counts the bytes of requests, and refuses those that exceed *limit* together.

    The messages of request streams do not count: a model gets one at a time.
    """

    def __init__(self, backend: str, limit: int) -> None:
        self._backend = backend
        self._limit = limit
        self._lock = threading.Lock()
        self.bytes = 0

    @contextlib.contextmanager
    def holding(self, request: Any) -> Iterator[None]:
        """Count *request* while the body runs. A single request always fits.

        Raises ContractError with OVERLOADED.
        """
        size = request.ByteSize() if hasattr(request, "ByteSize") else 0
        with self._lock:
            if self.bytes and self.bytes + size > self._limit:
                problem = (
                    f"the requests that are being served have {self._limit} bytes; retry later"
                )
                raise ContractError(
                    OVERLOADED, backend=self._backend, problem=problem, retry_after=1.0
                )
            self.bytes += size
        try:
            yield
        finally:
            with self._lock:
                self.bytes -= size
