"""Deciding what an error means: details first, then words, then the bare code.

CONTRACT.md states these rules for every language.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from grpcerrors import _builtin
from grpcerrors._builtin import CATALOGUE
from grpcerrors._condition import Catalogue
from grpcerrors._read import survey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grpc import StatusCode

    from grpcerrors._condition import Condition, Heard
    from grpcerrors._read import Facts
    from grpcerrors._wire import ErrorInfo

_CATALOGUES_LIMIT = 128


class Evidence(str, Enum):
    """The rung that decided, most specific first."""

    DETAILS = "details"
    TEXT = "text"
    CODE = "code"


class Verdict(NamedTuple):
    """What an error means, and on what evidence.

    Attributes:
        condition: what is wrong; None when it is nothing that the contract knows.
        evidence: the rung that decided; None when none did. Details decide for no condition when
            they give a reason of the contract's domain that this version does not know.
        info: the `google.rpc.ErrorInfo` that decided, if one did.
        heard: the words that decided, if words did.
    """

    condition: Condition | None = None
    evidence: Evidence | None = None
    info: ErrorInfo | None = None
    heard: Heard | None = None

    @property
    def fields(self) -> Mapping[str, str]:
        """The metadata of the ErrorInfo, empty without one."""
        return self.info.metadata if self.info else {}

    @property
    def backend(self) -> str:
        """The name of the backend that says so, or ""."""
        return self.heard.backend if self.heard else self.fields.get("backend", "")

    @property
    def model(self) -> str:
        """The identity of the model that it is about, or ""."""
        return self.fields.get("model", "")

    @property
    def started(self) -> bool:
        """Whether the handler had begun to work on the request before it failed."""
        return self.fields.get("started") == "true"

    @property
    def unexecuted(self) -> bool:
        """Whether it is proved that the request was not executed; a bare code proves nothing."""
        if self.condition is None or self.evidence is Evidence.CODE or self.started:
            return False
        return self.condition.unexecuted and (self.heard is None or self.heard.dialect.unexecuted)


_NOTHING = Verdict()


def classify(err: object, catalogue: Catalogue = CATALOGUE) -> Verdict:
    """Return which condition of `catalogue` an error means, if any.

    Takes any object, raises nothing, never blocks, and runs in bounded time. Knows errors of sync
    and aio channels, `grpc.Status`, `ContractError`, `google.rpc.Status`, errors of google-api-core
    and Connect, plain exceptions, and whatever wraps one of them by `raise ... from ...` or in an
    exception group. The strongest evidence in any of these decides; between equals, the outermost.
    """
    verdicts = judge(survey(err), catalogue)
    return verdicts[0] if verdicts else _NOTHING


def held_model(err: object) -> str | None:
    """Return the model that a guard says it still held when the handler failed, as total as above.

    Such a failure is not staleness, whatever its words and its code say. "1" is a model without an
    identity. None: no guard says so, in this error or one that it wraps.
    """
    return next((held for *_, held in survey(err) if held), None)


# By identity: conditions with one name are equal, and may differ in their words.
_catalogues: dict[int, Catalogue] = {}


def matches(err: object, condition: Condition) -> bool:
    """Whether an error, or one that it wraps, says `condition`; False for None."""
    if any(condition is each for each in CATALOGUE):
        return _says(err, condition)
    if (catalogue := _catalogues.get(id(condition))) is None:
        if len(_catalogues) >= _CATALOGUES_LIMIT:
            _catalogues.clear()
        # It keeps the condition alive, so that no other one gets its id.
        catalogue = _catalogues[id(condition)] = Catalogue(condition, *CATALOGUE)
    return _says(err, condition, catalogue)


def is_model_not_loaded(err: object) -> bool:
    """Whether an error, or one that it wraps, says MODEL_NOT_LOADED; False for None."""
    return _says(err, _builtin.MODEL_NOT_LOADED)


def is_model_mismatch(err: object) -> bool:
    """Whether an error, or one that it wraps, says MODEL_MISMATCH; False for None."""
    return _says(err, _builtin.MODEL_MISMATCH)


def is_live_transcription_unsupported(err: object) -> bool:
    """Whether an error, or one it wraps, says LIVE_TRANSCRIPTION_UNSUPPORTED; False for None."""
    return _says(err, _builtin.LIVE_TRANSCRIPTION_UNSUPPORTED)


def is_stream_transcription_unsupported(err: object) -> bool:
    """Whether an error, or one it wraps, says STREAM_TRANSCRIPTION_UNSUPPORTED; False for None."""
    return _says(err, _builtin.STREAM_TRANSCRIPTION_UNSUPPORTED)


def _says(err: object, condition: Condition, catalogue: Catalogue = CATALOGUE) -> bool:
    for verdict in judge(survey(err), catalogue):  # noqa: SIM110 - any() costs as much as the rest
        if verdict.condition == condition:
            return True
    return False


def judge(found: Sequence[Facts], catalogue: Catalogue) -> Sequence[Verdict]:
    """Return what the highest rung on which anything is decided says, outermost error first."""
    if len(found) == 1:
        code, text, infos, _, held = found[0]
        if not infos and not held:
            return _bare(code, text, catalogue)
    verdicts = [each for _, _, infos, _, _ in found if (each := _detailed(infos, catalogue))]
    # A guard vouches that the model was there: words and code mean something else.
    if verdicts or any(held for *_, held in found):
        return verdicts
    # Where any error has a code, those without are left out: such a wrapper may quote the error
    # that it wraps, and only that one's code tells whether the words are a backend's or a user's.
    coded = any(code for code, *_ in found)
    bare = [
        verdict
        for code, text, *_ in found
        if code or not coded
        for verdict in _bare(code, text, catalogue)
    ]
    if said := [verdict for verdict in bare if verdict.evidence is Evidence.TEXT]:
        return said
    # An ErrorInfo of whatever domain says what the sender meant by its code.
    return [] if any(infos for _, _, infos, *_ in found) else bare


def _detailed(infos: Sequence[ErrorInfo], catalogue: Catalogue) -> Verdict | None:
    """An ErrorInfo of a known domain decides, whatever the code or text."""
    known = None
    for info in infos:
        if info.domain in catalogue.domains:
            if known is not None and (info.domain, info.reason) != (known.domain, known.reason):
                return None  # They contradict each other: AIP-193 allows one ErrorInfo.
            known = info
    if known is None:
        return None
    return Verdict(catalogue.by_reason(known.domain, known.reason), Evidence.DETAILS, known)


# A router meets the same few errors over and over.
@lru_cache(maxsize=256)
def _bare(code: StatusCode | None, text: str, catalogue: Catalogue) -> tuple[Verdict, ...]:
    """Without details: the words of a condition, or else the bare code."""
    if heard := catalogue.by_words(text, code):
        return (Verdict(heard.condition, Evidence.TEXT, None, heard),)
    condition = catalogue.by_code(code)
    return (Verdict(condition, Evidence.CODE),) if condition else ()
