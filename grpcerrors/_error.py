"""The exception that carries a condition, and the constructors of the built-in ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import grpc

from grpcerrors import _builtin, _wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpcerrors._condition import Condition


class ContractError(Exception):
    """An error of the contract: raise it behind a `ModelGuard`, or give it to `abort`.

    It has what `grpc.Status` has, so `context.abort_with_status(error)` takes it too.

    Attributes:
        code: the `grpc.StatusCode`.
        details: the status message.
        trailing_metadata: the trailers that carry the `google.rpc.Status`.
        condition: what is wrong.
        fields: the ErrorInfo's metadata.
        started: whether the handler had begun to work on the request, so that nothing proves
            that it was not executed.
    """

    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, bytes], ...]

    def __init__(
        self, condition: Condition, /, *, started: bool = False, **fields: str | None
    ) -> None:
        """Build the error of `condition`.

        Args:
            condition: what is wrong.
            started: see the attribute.
            **fields: a value for each field of the condition's message, and whatever else is to
                travel with it; None and empty values do not. Any string is taken: what UTF-8
                cannot say is replaced, what makes the trailers too long is cut.

        Raises:
            TypeError: a field of the message is missing, or a value is not a string.
        """
        if missing := [name for name in condition.fields if fields.get(name) is None]:
            raise TypeError(f"{condition.reason} needs a value for {', '.join(missing)}")
        values = {name: _string(name, value) for name, value in fields.items() if value is not None}
        status, self.fields = _wire.encode(condition, values, started=started)
        super().__init__(status.details)
        self.code, self.details = status.code, status.details
        self.trailing_metadata = cast("tuple[tuple[str, bytes], ...]", status.trailing_metadata)
        self.condition = condition
        self.started = started

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name, value in self.fields.items()]
        return f"ContractError({', '.join([self.condition.reason, *given])})"

    def __reduce__(self) -> tuple[Callable[..., ContractError], tuple[object, ...]]:
        return _rebuild, (self.condition, dict(self.fields))


grpc.Status.register(ContractError)


def _string(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError(f"{name} must be a string, not {type(value).__name__}")


def _rebuild(condition: Condition, fields: dict[str, str]) -> ContractError:
    given = dict.fromkeys(condition.fields, "") | fields
    started = given.pop(_wire.STARTED, "") == "true"
    return ContractError(condition, started=started, **given)


def model_not_loaded(
    backend: str, *, model: str | None = None, started: bool = False
) -> ContractError:
    """FAILED_PRECONDITION: `backend` does not hold the model, whose identity is `model` if known.

    `started` says that the handler had begun to work on the request (LocalAI pull request 10181).
    """
    return ContractError(_builtin.MODEL_NOT_LOADED, backend=backend, model=model, started=started)


def model_mismatch(backend: str, *, loaded: str, requested: str) -> ContractError:
    """NOT_FOUND: `backend` holds the model `loaded`, the request named another, `requested`."""
    return ContractError(
        _builtin.MODEL_MISMATCH, backend=backend, loaded=loaded, requested=requested
    )


def live_transcription_unsupported(backend: str, reason: str) -> ContractError:
    """UNIMPLEMENTED: `backend` or its model cannot transcribe live; `reason` says why."""
    return ContractError(_builtin.LIVE_TRANSCRIPTION_UNSUPPORTED, backend=backend, reason=reason)


def stream_transcription_unsupported(backend: str, reason: str) -> ContractError:
    """UNIMPLEMENTED: `backend` or its model cannot stream transcriptions; `reason` says why."""
    return ContractError(_builtin.STREAM_TRANSCRIPTION_UNSUPPORTED, backend=backend, reason=reason)
