"""Telling a person how an error was judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpcerrors._catalogue import CATALOGUE
from grpcerrors._detect import Evidence, Verdict, judge
from grpcerrors._facts import survey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpcerrors._condition import Catalogue
    from grpcerrors._facts import Facts

_WIDTH = 88
_ERRORS_SHOWN = 5


def explain(err: object, catalogue: Catalogue = CATALOGUE) -> str:
    """Say in a few lines what an error means, which rung decided, and on what.

    As total as `classify`. It is for a person at 3 a.m., and the wording may change: a program asks
    `classify`.
    """
    found = survey(err)
    verdict = next(iter(judge(found, catalogue)), Verdict())
    lines = [_headline(verdict), f"  because {_reason(verdict, found)}"]
    for position, facts in enumerate(found[:_ERRORS_SHOWN]):
        lines.append(f"  {'error' if position == 0 else 'wraps'}: {_shown(facts)}")
    if len(found) > _ERRORS_SHOWN:
        lines.append(f"  and {len(found) - _ERRORS_SHOWN} more that it wraps")
    return "\n".join(lines)


def _headline(verdict: Verdict) -> str:
    if verdict.condition is None:
        return "nothing that the contract knows"
    words = verdict.condition.reason.replace("_", " ").lower()
    parties = [
        f"{name} {_quoted(value)}"
        for name, value in (("backend", verdict.backend), ("model", verdict.model))
        if value
    ]
    return ", ".join([words, *parties])


def _reason(verdict: Verdict, found: list[Facts]) -> str:
    """Say which rung decided."""
    if verdict.evidence is Evidence.DETAILS and verdict.info:
        said = f"its details say so ({verdict.info.domain}/{verdict.info.reason})"
        if verdict.condition is None:
            return f"{said}, a reason that this version does not know; text and code do not count"
        return f"{said}; the handler had begun on the request" if verdict.started else said
    if verdict.heard:
        return f"of its words, as said by {verdict.heard.dialect.system}; no details decided"
    if verdict.condition:
        return (
            f"of its bare code, {verdict.condition.code.name}: no details, and no words that the "
            "contract knows. Ask the backend's Status before acting on it"
        )
    return _why_nothing(found)


def _why_nothing(found: list[Facts]) -> str:
    if any(held for *_, held in found):
        return "a guard says that the model was there: words and code mean something else"
    if any(infos for _, _, infos, *_ in found):
        return "the details are of another domain, which rules out the code, and no words decide"
    return "neither details, nor words, nor code say anything that it knows"


def _shown(facts: Facts) -> str:
    code, text, infos, _, held = facts
    parts = [code.name if code else "no code", _quoted(text)]
    parts += [f"{info.domain}/{info.reason} {_fields(info.metadata)}".rstrip() for info in infos]
    if held is not None:
        parts.append(f"model {_quoted(held)} held")
    return ", ".join(parts)


def _fields(metadata: Mapping[str, str]) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in sorted(metadata.items()))


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…")
