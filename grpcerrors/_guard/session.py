"""One RPC as the guard follows it: let in or refused, judged when it fails, and ended."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from grpc import StatusCode

from grpcerrors import _wire
from grpcerrors._error import ContractError, model_not_loaded

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future

    from grpcerrors._guard.models import Models

_logger = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """How a handler ended, as far as it shows.

    Attributes:
        code: the status code that it set or aborted with.
        trailers: the trailing metadata that it set or aborted with.
        error: what it raised.
        answer: its unary response.
    """

    code: Any
    trailers: Iterable[tuple[str, Any]] | None
    error: BaseException | None = None
    answer: Any = None

    @classmethod
    def of(cls, context: Any, error: BaseException | None, answer: Any) -> Outcome:
        """Read from its context how a handler ended."""
        return cls(context.code(), context.trailing_metadata(), error, answer)

    @property
    def failed(self) -> bool:
        """Most handlers fail without raising: by a code, or by `Result.success`."""
        return (
            self.error is not None
            or self.code not in (None, 0, StatusCode.OK)
            or getattr(self.answer, "success", True) is False
        )

    @property
    def unimplemented(self) -> bool:
        """Whether it said that nobody wrote it."""
        return self.code in (StatusCode.UNIMPLEMENTED, StatusCode.UNIMPLEMENTED.value[0])

    @property
    def deliberate(self) -> bool:
        """Whether it said what is wrong in a form that a program can read."""
        if self.unimplemented:
            return True
        details = (value for key, value in self.trailers or () if key == _wire.DETAILS_KEY)
        return any(map(_wire.decode, details))


class Session:
    """An RPC that neither needs the model nor changes it."""

    drained: Future[None] | None = None
    """Done when the calls that the handler is to wait for have left; None: it need not wait."""

    def start(self) -> None:
        """Note that the handler begins."""

    def instead_of(self, outcome: Outcome) -> ContractError | None:
        """Return what to answer instead of the handler's answer; None where that stands."""
        return outcome.error if isinstance(outcome.error, ContractError) else None

    def end(self, outcome: Outcome) -> None:
        """Note that the handler has ended."""

    def finish(self, outcome: Outcome) -> ContractError | None:
        """Judge and end: return as `instead_of` does."""
        try:
            cancelled = isinstance(outcome.error, BaseException) and not isinstance(
                outcome.error, Exception
            )
            return None if cancelled else self.instead_of(outcome)
        finally:
            self.end(outcome)


class Inference(Session):
    """An RPC that needs the model; opening it raises the `ContractError` that refuses it."""

    def __init__(self, models: Models, identity: str) -> None:
        self._models = models
        self._call = models.enter(identity)

    def instead_of(self, outcome: Outcome) -> ContractError | None:
        """An accident after the model has gone is the typed error."""
        own = super().instead_of(outcome)
        if own or not outcome.failed or outcome.deliberate or not self._models.gone(self._call):
            return own
        backend = self._models.backend
        _logger.info("%s: a call failed, its model has gone", backend, exc_info=outcome.error)
        return model_not_loaded(backend, model=self._call.identity, started=True)

    def end(self, outcome: Outcome) -> None:  # noqa: ARG002 - it leaves, whatever came of it
        """Leave."""
        self._models.leave(self._call)


class Changing(Session):
    """A LoadModel of `identity`, or a Free where that is None.

    Only a LoadModel that says so has loaded a model, and only a Free that is UNIMPLEMENTED, or a
    handler that never ran, has kept one: any other failure may have done half its work.
    """

    def __init__(self, models: Models, identity: str | None) -> None:
        self._models = models
        self._identity = identity
        self._change = models.begin()
        self._started = False
        self.drained = self._change.drained

    def start(self) -> None:
        """Note that the handler begins."""
        self._started = True

    def end(self, outcome: Outcome) -> None:
        """Record what is loaded now."""
        freeing = self._identity is None
        if not self._started or (freeing and outcome.unimplemented):
            self._models.keep(self._change)
        elif freeing or outcome.failed or outcome.answer is None:
            self._models.commit(self._change, None)
        else:
            self._models.commit(self._change, self._identity)
