"""The status that the server sent, if `grpc.aio` shows another one (grpc issue 36066).

If a write loses the race with the end of a call, `grpc.aio` overwrites the status that the server
has delivered with INTERNAL "Internal error from Core": code, text and trailers are lost. At the
moment when the call is done, they are still there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Coroutine

_STAND_IN = "Internal error from Core"


def known_code(call: Any) -> grpc.StatusCode:
    """Return the code of a call that is done."""
    return _known(call.code())


def known_error(call: Any) -> grpc.aio.AioRpcError | None:
    """Return the error of a call that is done; None if it ended with OK."""
    if known_code(call) is grpc.StatusCode.OK:
        return None
    return grpc.aio.AioRpcError(
        known_code(call),
        _known(call.initial_metadata()),
        _known(call.trailing_metadata()),
        _known(call.details()),
        _known(call.debug_error_string()),
    )


def is_stand_in(error: grpc.aio.AioRpcError) -> bool:
    """Return whether `grpc.aio` put this error in place of the server's."""
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == _STAND_IN


def _known(question: Coroutine[Any, Any, Any]) -> Any:
    # For a call that is done, these coroutines return without being suspended.
    try:
        question.send(None)
    except StopIteration as answer:
        return answer.value
    question.close()
    msg = "the call is not done"
    raise RuntimeError(msg)
