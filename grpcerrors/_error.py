"""The exception that carries a condition, and the constructors of the built-in ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import grpc

from grpcerrors import _catalogue, _wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from grpcerrors._condition import Condition


class ContractError(Exception):
    """An error of the contract: raise it behind a `ModelGuard`, or hand it to `abort`.

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
    condition: Condition
    fields: Mapping[str, str]
    started: bool

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
            msg = f"{condition.reason} needs a value for {', '.join(missing)}"
            raise TypeError(msg)
        values = {name: _string(name, value) for name, value in fields.items() if value is not None}
        status, metadata = _wire.encode(condition, values, started=started)
        super().__init__(status.details)
        self.code = status.code
        self.details = status.details
        self.trailing_metadata = cast("tuple[tuple[str, bytes], ...]", status.trailing_metadata)
        self.condition = condition
        self.fields = metadata
        self.started = started

    def within(self, limit: int) -> grpc.Status:
        """Return the error as it travels in a trailer block of at most `limit` bytes."""
        status = cast("grpc.Status", self)  # it has all that a Status has
        if _wire.trailers_size(status) <= limit:
            return status
        values = dict.fromkeys(self.condition.fields, "") | dict(self.fields)
        return _wire.encode(self.condition, values, started=self.started, limit=limit).status

    def __repr__(self) -> str:
        given = [self.condition.reason]
        given += [f"{name}={value!r}" for name, value in self.fields.items()]
        return f"ContractError({', '.join(given)})"

    def __reduce__(self) -> tuple[Callable[..., ContractError], tuple[object, ...]]:
        return _rebuild, (self.condition, dict(self.fields))


grpc.Status.register(ContractError)


def _string(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    msg = f"{name} must be a string, not {type(value).__name__}"
    raise TypeError(msg)


def _rebuild(condition: Condition, fields: dict[str, str]) -> ContractError:
    given = dict.fromkeys(condition.fields, "") | fields
    started = given.pop("started", "") == "true"
    return ContractError(condition, started=started, **given)


def model_not_loaded(
    backend: str, *, model: str | None = None, started: bool = False
) -> ContractError:
    """The model is not loaded in this process: FAILED_PRECONDITION (LocalAI pull request 10181).

    Args:
        backend: the backend's name, as in `<backend>: model not loaded`.
        model: the identity of the missing model, where it is known.
        started: whether the handler had begun to work on the request.
    """
    return ContractError(_catalogue.MODEL_NOT_LOADED, backend=backend, model=model, started=started)


def model_mismatch(backend: str, *, loaded: str, requested: str) -> ContractError:
    """Another model is loaded in this process: NOT_FOUND (LocalAI `checkModelIdentity`).

    Args:
        backend: the backend's name.
        loaded: the identity of the model that is loaded.
        requested: the identity that the request named.
    """
    return ContractError(
        _catalogue.MODEL_MISMATCH, backend=backend, loaded=loaded, requested=requested
    )


def live_transcription_unsupported(backend: str, reason: str) -> ContractError:
    """This backend or its model cannot transcribe live: UNIMPLEMENTED.

    Args:
        backend: the backend's name.
        reason: why not, in a few words.
    """
    return ContractError(_catalogue.LIVE_TRANSCRIPTION_UNSUPPORTED, backend=backend, reason=reason)


def stream_transcription_unsupported(backend: str, reason: str) -> ContractError:
    """This backend or its model cannot stream a transcription: UNIMPLEMENTED.

    Args:
        backend: the backend's name.
        reason: why not, in a few words.
    """
    return ContractError(
        _catalogue.STREAM_TRANSCRIPTION_UNSUPPORTED, backend=backend, reason=reason
    )
