"""Explaining to a person how an error was judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpcerrors import _wire
from grpcerrors._builtin import ADVICE, CATALOGUE, EXPLANATIONS
from grpcerrors._detect import Evidence, Verdict, judge
from grpcerrors._read import survey

if TYPE_CHECKING:
    from grpcerrors._condition import Catalogue
    from grpcerrors._read import Facts

_WIDTH = 88
_ERRORS_SHOWN = 5
_LONGEST = 1_000  # characters of a line
_CONTROL = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "?")  # reasons may have them too


def explain(err: object, catalogue: Catalogue = CATALOGUE) -> str:
    """Return a few lines for a person: what an error means, which rung decided, and why.

    Like `classify`, it takes any object and raises nothing. The wording may change: a program
    calls `classify`.
    """
    found = survey(err)
    verdict = next(iter(judge(found, catalogue)), Verdict())
    lines = [_headline(verdict), f"  because {_reason(verdict, found)}"]
    lines.append(f"  error: {_shown(found[0])}")
    lines += [f"  wraps: {_shown(facts)}" for facts in found[1:_ERRORS_SHOWN]]
    if len(found) > _ERRORS_SHOWN:
        lines.append(f"  and {len(found) - _ERRORS_SHOWN} more that it wraps")
    return "\n".join(line[:_LONGEST].translate(_CONTROL) for line in lines)


def _headline(verdict: Verdict) -> str:
    condition, _, info, dialect, _ = verdict
    named = condition or (info if info and info.reason in ADVICE else None)
    if named is None:
        return "nothing that the contract knows"
    words = named.reason.replace("_", " ").lower()
    lacks = dialect.hints == ("unimplemented",) if dialect else not info
    if condition and condition.rpc and lacks:
        words = f"not implemented (or, for {condition.rpc}, {words})"
    fields = ((name, verdict.fields.get(name)) for name in ("backend", "model", "node"))
    return words + "".join(f", {name} {_quoted(value)}" for name, value in fields if value)


def _reason(verdict: Verdict, found: list[Facts]) -> str:
    """Return which rung decided, and what to do if the caller cannot know."""
    condition, evidence, info, dialect, _ = verdict
    if evidence is None:
        held = any(held for *_, held in found)
        foreign = any(infos for _, _, infos, *_ in found)
        return EXPLANATIONS["held" if held else "foreign" if foreign else "nothing"]
    said = EXPLANATIONS[evidence.value].format(condition=condition, info=info, dialect=dialect)
    if info and condition is None:
        return f"{said}: {ADVICE.get(info.reason, EXPLANATIONS['unknown'])}"
    unsure = evidence is Evidence.CODE and not (condition and condition.rpc)
    return said + EXPLANATIONS["unsure"] * unsure + EXPLANATIONS["started"] * verdict.started


def _shown(facts: Facts) -> str:
    code, text, infos, _, held = facts
    parts = [code.name if code else "no code", _quoted(text)]
    for info in infos:
        fields = (f" {name}={_quoted(value)}" for name, value in sorted(info.metadata.items()))
        said = f"{info.domain}/{info.reason}{''.join(fields)}"
        parts.append(": ".join(_wire.plain_trailer(*info[:2])) if info.plain else said)
        parts += [] if info.retry_after is None else [f"retry after {info.retry_after:g} s"]
    return ", ".join([*parts, f"model {_quoted(held)} held"] if held else parts)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…")
