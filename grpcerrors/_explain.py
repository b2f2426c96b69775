"""Telling a person how an error was judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpcerrors._builtin import CATALOGUE
from grpcerrors._detect import Evidence, Verdict, judge
from grpcerrors._read import survey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpcerrors._condition import Catalogue
    from grpcerrors._read import Facts

_WIDTH = 88
_ERRORS_SHOWN = 5

# The reasons with which this project's router answers for itself, and what to do about each.
_OF_THE_ROUTER = {
    "IN_USE": "the model stays loaded, mostly for calls in flight; retry later, or force it",
    "INTERNAL": "the router failed by a mistake of its own; report what its log says",
    "INVALID_NODE": "the node cannot be registered as it describes itself; the text says why",
    "LOAD_FAILED": "a node could not load the model; fix what the node's text says",
    "LOAD_TIMEOUT": "the deadline came before the model was ready; retry later, or wait longer",
    "NAME_TAKEN": "another process that is alive has that name; choose one of its own",
    "NODE_LOST": "the call may have been executed; retry only what is safe to repeat",
    "NO_CAPACITY": "no node can take the model now; retry later, or add a node",
    "NO_MODEL_KEY": "the request must name one model; send the header x-model-id once",
    "NOT_ROUTED": "the router loads models by itself; or run grpcerrors-router load MODEL",
    "OVERLOADED": "the router is at a limit of its own; retry later",
    "PROXY_LOOP": "a node's address leads back to the router; remove that node",
    "REGISTRY_OUTDATED": "the database is of another version; start serve of the newer one once",
    "REGISTRY_UNAVAILABLE": "the router cannot reach its database; start it, and retry",
    "ROUTER_STOPPING": "the router is stopping; retry at another one",
    "ROUTE_FAILED": "the router could not route the request; the text says why",
    "UNKNOWN_MODEL": "neither models.toml nor any node has that model; fix the name",
    "UNLOAD_UNSUPPORTED": "the backend has no Free, so it keeps the model; restart the backend",
}


def explain(err: object, catalogue: Catalogue = CATALOGUE) -> str:
    """Return a few lines for a person: what an error means, which rung decided, and on what.

    As total as `classify`. The wording may change: a program asks `classify`.
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
    condition, evidence, info, _ = verdict
    if condition is None and (info is None or info.reason not in _OF_THE_ROUTER):
        return "nothing that the contract knows"
    reason = condition.reason if condition else info.reason if info else ""
    words = reason.replace("_", " ").lower()
    if condition and condition.rpc and evidence is Evidence.CODE:
        words = f"not implemented (or, if asked of {condition.rpc}, {words})"
    named = [("backend", verdict.backend), ("model", verdict.model)]
    named.append(("node", verdict.fields.get("node", "")))
    return ", ".join([words, *(f"{name} {_quoted(value)}" for name, value in named if value)])


def _reason(verdict: Verdict, found: list[Facts]) -> str:
    """Return which rung decided, and what to do where that is not the caller's to know."""
    condition, _, info, heard = verdict
    if info:
        said = f"its details say so ({info.domain}/{info.reason})"
        if condition:
            return f"{said}; the handler had begun on the request" if verdict.started else said
        unknown = "a reason that this version does not know; text and code do not count"
        return f"{said}: {_OF_THE_ROUTER.get(info.reason, unknown)}"
    if heard:
        return f"of its words, as said by {heard.dialect.system}; no details decided"
    if condition:
        said = f"of its bare code, {condition.code.name}: no details, and no words that are known"
        return said if condition.rpc else f"{said}. Ask the backend's Status before acting on it"
    if any(held for *_, held in found):
        return "a guard says that the model was there: words and code mean something else"
    foreign = "the details are of another domain, which rules out the code, and no words decide"
    nothing = "neither details, nor words, nor code say anything that it knows"
    return foreign if any(infos for _, _, infos, *_ in found) else nothing


def _shown(facts: Facts) -> str:
    code, text, infos, _, held = facts
    parts = [code.name if code else "no code", _quoted(text)]
    parts += [f"{info.domain}/{info.reason} {_fields(info.metadata)}".rstrip() for info in infos]
    return ", ".join([*parts, f"model {_quoted(held)} held"] if held else parts)


def _fields(metadata: Mapping[str, str]) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in sorted(metadata.items()))


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…")
