"""One RPC as the guard sees it: admitted or refused, judged if it fails, and ended."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from grpc import StatusCode

from grpcerrors import _wire
from grpcerrors._error import ContractError, model_not_loaded
from grpcerrors._guard.begun import begun
from grpcerrors._guard.held import held_trailer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from typing import TypeAlias

    from grpcerrors._guard.models import Change, Models
    from grpcerrors._guard.protocol import Protocol

    Trailers: TypeAlias = tuple[tuple[str, Any], ...]

_logger = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """How a handler ended.

    Attributes:
        code: the status code that it set or aborted with.
        details: the status message that it set or aborted with.
        trailers: the trailing metadata that it set or aborted with.
        error: what it raised.
        answer: its unary response.
    """

    code: Any
    details: Any
    trailers: Iterable[tuple[str, Any]] | None
    error: BaseException | None = None
    answer: Any = None

    @classmethod
    def of(cls, context: Any, error: BaseException | None, answer: Any = None) -> Outcome:
        """Read from its context how a handler ended."""
        return cls(context.code(), context.details(), context.trailing_metadata(), error, answer)

    @property
    def failed(self) -> bool:
        """Whether it raised or set a code; most handlers do the latter."""
        return self.error is not None or self.code not in (None, 0, StatusCode.OK)

    def successful(self, protocol: Protocol) -> bool:
        """Whether it did not fail, and did not return a response that says that it did."""
        return not self.failed and all(_says(self.answer, name) for name in protocol.success)

    @property
    def unimplemented(self) -> bool:
        """Whether it answered UNIMPLEMENTED."""
        return self._is(StatusCode.UNIMPLEMENTED)

    @property
    def refused(self) -> bool:
        """Whether the caller was not allowed to call it."""
        return self._is(StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED)

    @property
    def typed(self) -> bool:
        """Whether its error has details, or a plain trailer, that a program can read."""
        said = (
            _wire.decode(value) if key == _wire.DETAILS_KEY else key == _wire.UNEXECUTED_KEY
            for key, value in self.trailers or ()
        )
        return isinstance(self.error, ContractError) or any(said)

    @property
    def message(self) -> str:
        """A text at least as long as the status message, which gRPC may build from an exception."""
        details = self.details
        said = details.decode(errors="replace") if isinstance(details, bytes) else details or ""
        if self.error is not None:
            # "Exception calling application: …" or "Unexpected <class …>: …".
            said = max(said, f"{type(self.error)} {_words(self.error)} {'':64}", key=len)
        return said.encode(errors="replace").decode()

    def _is(self, *codes: StatusCode) -> bool:
        return any(self.code in (code, code.value[0]) for code in codes)


class Ending(NamedTuple):
    """What the client gets in place of a handler's answer.

    Attributes:
        instead: the error to send; None to keep the handler's answer.
        trailers: the trailing metadata to set; None to keep the handler's.
    """

    instead: ContractError | None = None
    trailers: Trailers | None = None


class Opening(NamedTuple):
    """How the calls of an RPC are let in.

    Attributes:
        begin: opens the session of a call, by its request; for a request stream whose messages name
            their model, by the first message, None if there is none. It raises the `ContractError`
            that refuses the call.
        drain: for how many seconds to wait for the calls that a change would disturb; None for no
            wait.
        peeks: whether it is such a request stream.
    """

    begin: Callable[[Any], Session]
    drain: float | None
    peeks: bool


class Session:
    """An RPC that neither needs the model nor changes it."""

    drained: Future[None] | None = None
    """Done when the calls that the handler must wait for have left; None for no wait."""

    answering = False
    """Whether part of the answer has been sent; to be set."""

    def start(self) -> None:
        """Record that the handler begins."""

    def judge(self, outcome: Outcome) -> Ending:
        """Return what the client gets."""
        error = outcome.error if isinstance(outcome.error, ContractError) else None
        if not self.answering:
            return Ending(error)
        if error and (trailers := begun(error.trailing_metadata)):
            error = copy.copy(error)
            error.trailing_metadata = trailers
        return Ending(error, begun(outcome.trailers))

    def abort(self, outcome: Outcome) -> Ending:
        """Judge an abort that gRPC sends at once, before the handler ends."""
        return self.judge(outcome)

    def end(self, outcome: Outcome) -> None:
        """Record that the handler has ended."""

    def finish(self, outcome: Outcome) -> Ending:
        """Judge the outcome, unless the call was cancelled, and end the session."""
        cancelled = outcome.error is not None and not isinstance(outcome.error, Exception)
        try:
            return Ending() if cancelled else self.judge(outcome)
        finally:
            self.end(outcome)


class Inference(Session):
    """An RPC that needs the model; opening it raises the `ContractError` that refuses it."""

    def __init__(self, protocol: Protocol, models: Models, identity: str) -> None:
        self._protocol = protocol
        self._models = models
        self._call = models.enter(identity)

    def judge(self, outcome: Outcome) -> Ending:
        """Replace the failure if the model is gone; otherwise vouch for the model."""
        if outcome.successful(self._protocol) or outcome.typed:
            return super().judge(outcome)
        held = self._models.held(self._call)
        if held is not None:
            return Ending(trailers=_vouching(outcome, held) if outcome.failed else None)
        if outcome.unimplemented:
            return Ending()
        backend = self._models.backend
        _logger.info("%s: a call failed because its model is gone", backend, exc_info=outcome.error)
        return Ending(model_not_loaded(backend, model=self._call.identity, started=True))

    def end(self, outcome: Outcome) -> None:  # noqa: ARG002 - it makes no difference
        """Record that the call has ended."""
        self._models.leave(self._call)


class Changing(Session):
    """A load or an unload.

    A model counts as loaded only if its load succeeded. The earlier models are kept only if the
    handler never ran, the caller was not authorized, or the unload is not implemented: any other
    failure may have done half of the work.
    """

    def __init__(self, protocol: Protocol, models: Models, change: Change) -> None:
        self._protocol = protocol
        self._models = models
        self._ended = False
        self._change = change
        self.drained = change.drained

    def start(self) -> None:
        """Record that the handler begins."""
        self._models.start(self._change)

    def abort(self, outcome: Outcome) -> Ending:
        """Record the change before the client receives the answer and sends its next call."""
        self.end(outcome)
        return super().abort(outcome)

    def end(self, outcome: Outcome) -> None:
        """Record what is loaded now."""
        if self._ended:
            return
        self._ended = True
        change = self._change
        loading = change.model is not None
        if not change.started or outcome.refused or (outcome.unimplemented and not loading):
            self._models.keep(change)
        else:
            done = outcome.successful(self._protocol) and outcome.answer is not None
            self._models.commit(change, loaded=loading and done)


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - foreign code
        return ""


def _vouching(outcome: Outcome, held: str) -> Trailers | None:
    """Return the outcome's trailers and the vouching one, or None if they do not fit."""
    earlier = tuple(item for item in outcome.trailers or () if item[0] != _wire.HELD_KEY)
    for name in (held, ""):
        trailers = (*earlier, held_trailer(name))
        if _wire.trailers_size(outcome.message, trailers) <= _wire.TRAILERS_LIMIT:
            return trailers
    return None


def _says(answer: Any, field: str) -> bool:
    """Whether a response reports success; a field that it lacks or leaves unset says nothing."""
    try:
        if not answer.HasField(field):
            return True
    except (AttributeError, ValueError):  # a boolean that cannot tell unset from false
        pass
    return getattr(answer, field, True) is not False
