"""The exception that carries a condition, and the constructors of the built-in ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from grpcerrors import _builtin, _wire

if TYPE_CHECKING:
    from grpcerrors._condition import Condition


class ContractError(Exception):
    """An error of the contract: raise it behind a `ModelGuard`, or pass it to `abort`.

    It has the attributes of `grpc.Status`, so `context.abort_with_status(error)` takes it too.

    Args:
        condition: what is wrong.
        started: whether the handler had begun to work on the request, so that nothing proves that
            the request was not executed.
        retry_after: how many seconds the caller should wait before it tries again; None to say
            nothing. It is sent as a `google.rpc.RetryInfo`.
        **fields: a value for each field of the condition's message, and further values to send with
            it; None and empty values are left out. Any string is accepted: what UTF-8 cannot
            encode is replaced, and what makes the trailers too long is cut.

    Attributes:
        condition, started, retry_after: as given.
        fields: the ErrorInfo's metadata.
        code: the `grpc.StatusCode`.
        details: the status message.
        trailing_metadata: the trailers: first the `google.rpc.Status`; then, if the error proves
            that the request was not executed, `grpcerrors-unexecuted`, which a proxy can read.

    Raises:
        TypeError: a field of the message is missing, or a value is not a string.
    """

    def __init__(
        self,
        condition: Condition,
        /,
        *,
        started: bool = False,
        retry_after: float | None = None,
        **fields: str | None,
    ) -> None:
        if missing := [name for name in condition.fields if fields.get(name) is None]:
            raise TypeError(f"{condition.reason} needs a value for {', '.join(missing)}")
        values = {name: value for name, value in fields.items() if value is not None}
        for name, value in values.items():
            if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"{name} must be a string, not {type(value).__name__}")
        metadata = values | ({_wire.STARTED: "true"} if started else {})
        self.details, self.trailing_metadata, self.fields = _wire.encode(
            condition.code,
            lambda cut: condition.message.format_map({name: cut(values[name]) for name in values}),
            _wire.ErrorInfo(condition.domain, condition.reason, metadata, retry_after),
            unexecuted=condition.unexecuted and not started,
        )
        super().__init__(self.details)
        self.code: grpc.StatusCode = condition.code
        self.condition = condition
        self.started = started
        self.retry_after = retry_after

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name, value in self.fields.items()]
        return f"ContractError({', '.join([self.condition.reason, *given])})"

    def __reduce__(self) -> tuple[object, ...]:
        # An exception would be built again from its message.
        return Exception.__new__, (type(self), self.details), vars(self)


grpc.Status.register(ContractError)


def model_not_loaded(
    backend: str, *, model: str | None = None, started: bool = False
) -> ContractError:
    """FAILED_PRECONDITION: `backend` does not hold the model, whose identity may be `model`."""
    return ContractError(_builtin.MODEL_NOT_LOADED, backend=backend, model=model, started=started)


def model_mismatch(backend: str, *, loaded: str, requested: str) -> ContractError:
    """NOT_FOUND: `backend` holds the model `loaded`, but the request names `requested`."""
    return ContractError(
        _builtin.MODEL_MISMATCH, backend=backend, loaded=loaded, requested=requested
    )


def model_loading(
    backend: str, *, model: str | None = None, retry_after: float = 1.0
) -> ContractError:
    """UNAVAILABLE: `backend` is loading the model; the caller may try again in `retry_after` s."""
    return ContractError(
        _builtin.MODEL_LOADING, backend=backend, model=model, retry_after=retry_after
    )


def live_transcription_unsupported(backend: str, reason: str) -> ContractError:
    """UNIMPLEMENTED: `backend` or its model cannot transcribe live; `reason` says why."""
    return ContractError(_builtin.LIVE_TRANSCRIPTION_UNSUPPORTED, backend=backend, reason=reason)


def stream_transcription_unsupported(backend: str, reason: str) -> ContractError:
    """UNIMPLEMENTED: `backend` or its model cannot stream transcriptions; `reason` says why."""
    return ContractError(_builtin.STREAM_TRANSCRIPTION_UNSUPPORTED, backend=backend, reason=reason)
