"""Deciding what an error means: by its details, else its words, else its bare code.

CONTRACT.md states these rules for every language.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from grpc import StatusCode

from grpcerrors import _builtin
from grpcerrors._builtin import CATALOGUE
from grpcerrors._condition import Catalogue
from grpcerrors._read import survey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from grpcerrors._condition import Condition, Dialect
    from grpcerrors._read import Facts
    from grpcerrors._wire import ErrorInfo


class Evidence(str, Enum):
    """The rung that decided, strongest first."""

    DETAILS = "details"
    TRAILER = "trailer"
    TEXT = "text"
    CODE = "code"


class Verdict(NamedTuple):
    """What an error means, and on what evidence.

    Attributes:
        condition: what is wrong; None for nothing that the contract knows.
        evidence: the rung that decided; None if none did. Details, and the plain trailer, decide
            for no condition if they give a reason that this version does not know.
        info: the `google.rpc.ErrorInfo` that decided, or what the plain trailer says, if they did.
        dialect: the words that decided, if words did.
        fields: the metadata of `info`, or the `backend` that the words name.
    """

    condition: Condition | None = None
    evidence: Evidence | None = None
    info: ErrorInfo | None = None
    dialect: Dialect | None = None
    fields: Mapping[str, str] = MappingProxyType({})

    @property
    def backend(self) -> str:
        """The name of the backend that reports it, or ""."""
        return self.fields.get("backend", "")

    @property
    def model(self) -> str:
        """The identity of the model that it is about, or ""."""
        return self.fields.get("model", "")

    @property
    def started(self) -> bool:
        """Whether the handler had begun to work on the request before it failed."""
        return self.fields.get("started") == "true"

    @property
    def retry_after(self) -> float | None:
        """How many seconds the sender asks to wait before the next attempt, if it does."""
        return self.info.retry_after if self.info else None

    @property
    def typed(self) -> bool:
        """Whether the sender said it by the contract: in details, or by the plain trailer."""
        return self.info is not None

    @property
    def unexecuted(self) -> bool:
        """Whether it is proved that the request was not executed; a bare code proves nothing."""
        if self.evidence is Evidence.TRAILER:
            return True
        if self.condition is None or self.evidence is Evidence.CODE or self.started:
            return False
        return self.condition.unexecuted and (self.dialect is None or self.dialect.unexecuted)


_NOTHING = Verdict()


def classify(err: object, catalogue: Catalogue = CATALOGUE) -> Verdict:
    """Return which condition of `catalogue` an error means, if any.

    Takes any object, raises nothing, never blocks, and runs in bounded time. Reads errors of sync
    and aio channels, `grpc.Status`, `ContractError`, `google.rpc.Status`, errors of google-api-core
    and Connect, plain exceptions, and whatever wraps one of them by `raise ... from ...` or in an
    exception group. The strongest evidence in any of these decides; between equals, the outermost.
    """
    verdicts = judge(survey(err), catalogue)
    return verdicts[0] if verdicts else _NOTHING


def held_model(err: object) -> str | None:
    """Return the model that a guard reports as still held when the handler failed.

    Such a failure does not mean that the model is gone, whatever its words and its code say. "1" is
    a model without an identity; None: no guard reports any. Takes any object, as `classify`.
    """
    return next((held for *_, held in survey(err) if held), None)


def _predicate(condition: Condition, catalogue: Catalogue = CATALOGUE) -> Callable[[object], bool]:
    condition_of = attrgetter("condition")

    def predicate(err: object) -> bool:
        return condition in map(condition_of, judge(survey(err), catalogue))

    predicate.__name__ = predicate.__qualname__ = f"is_{condition.reason.lower()}"
    predicate.__doc__ = f"Whether an error, or one that it wraps, means {condition.reason}."
    return predicate


is_model_not_loaded = _predicate(_builtin.MODEL_NOT_LOADED)
is_model_mismatch = _predicate(_builtin.MODEL_MISMATCH)
is_model_loading = _predicate(_builtin.MODEL_LOADING)
is_live_transcription_unsupported = _predicate(_builtin.LIVE_TRANSCRIPTION_UNSUPPORTED)
is_stream_transcription_unsupported = _predicate(_builtin.STREAM_TRANSCRIPTION_UNSUPPORTED)


@lru_cache(maxsize=128)
def _predicate_of(condition: Condition, *_differences: object) -> Callable[[object], bool]:
    return _predicate(condition, Catalogue(condition, *CATALOGUE))


def matches(err: object, condition: Condition) -> bool:
    """Whether an error, or one that it wraps, means `condition`; False for None."""
    # Two equal conditions may differ in what identifies them.
    known = _predicate_of(condition, condition.code_alone, condition.code, condition.dialects)
    return known(err)


def judge(found: Sequence[Facts], catalogue: Catalogue) -> Sequence[Verdict]:
    """Return the verdicts of the highest rung that decides anything, outermost error first."""
    if len(found) == 1:
        code, text, infos, _, held = found[0]
        if not infos and not held:
            return _bare(code and code._name_, text, catalogue)
        if alone := _typed(infos, catalogue):
            return alone
    typed = [verdict for _, _, infos, *_ in found for verdict in _typed(infos, catalogue)]
    if detailed := [verdict for verdict in typed if verdict.evidence is Evidence.DETAILS]:
        return detailed
    # If a guard vouches that the model was there, words and code mean something else.
    if typed or any(held for *_, held in found):
        return typed
    # An error without a code may quote the error that it wraps, and only the code of that one shows
    # whether the words are a backend's or a user's. So it counts only if no error has a code.
    coded = [facts for facts in found if facts[0]] or found
    bare = [v for code, text, *_ in coded for v in _bare(code and code._name_, text, catalogue)]
    if said := [verdict for verdict in bare if verdict.evidence is Evidence.TEXT]:
        return said
    # An ErrorInfo of any domain says what the sender meant by its code.
    return [] if any(infos for _, _, infos, *_ in found) else bare


@lru_cache(maxsize=256)
def _typed(infos: Sequence[ErrorInfo], catalogue: Catalogue) -> tuple[Verdict, ...]:
    """Judge by an ErrorInfo of a known domain, else by the plain trailer, which comes last."""
    known = None
    for info in infos:
        if info.domain in catalogue.domains:
            if known is None:
                known = info
            elif info[:2] != known[:2] and not info.plain:
                return ()  # They contradict each other: AIP-193 allows one ErrorInfo.
    if known is None:
        return ()
    condition = catalogue.by_reason.get(known[:2])
    evidence = Evidence.TRAILER if known.plain else Evidence.DETAILS
    return (Verdict(condition, evidence, known, None, known.metadata),)


# A router meets the same few errors over and over.
@lru_cache(maxsize=256)
def _bare(name: str | None, text: str, catalogue: Catalogue) -> tuple[Verdict, ...]:
    """Judge without details: by the words of a condition, or else by the code of that name."""
    code = StatusCode[name] if name else None  # whose hash takes longer than all the rest
    if said := catalogue.by_words(text, code):
        condition, dialect, backend = said
        fields = MappingProxyType({"backend": backend} if backend else {})
        return (Verdict(condition, Evidence.TEXT, dialect=dialect, fields=fields),)
    alone = catalogue.by_code.get(code) if code else None
    return (Verdict(alone, Evidence.CODE),) if alone else ()
