"""The status that the server sent, where `grpc.aio` shows another one (grpc issue 36066).

When a write loses the race with the end of a call, `grpc.aio` puts INTERNAL "Internal error from
Core" over the status that the server has already delivered: code, text and trailers are lost to
whoever looks later. At the moment the call is done they are still there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Coroutine

_STAND_IN = "Internal error from Core"


def known_code(call: Any) -> grpc.StatusCode:
    """The code of a call that is done."""
    return _known(call.code())


def known_error(call: Any) -> grpc.aio.AioRpcError | None:
    """The error of a call that is done, None when it ended well."""
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
    """Whether `grpc.aio` made this up."""
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == _STAND_IN


def _known(question: Coroutine[Any, Any, Any]) -> Any:
    # A call that is done answers without being suspended.
    try:
        question.send(None)
    except StopIteration as answer:
        return answer.value
    question.close()
    msg = "the call is not done"
    raise RuntimeError(msg)
