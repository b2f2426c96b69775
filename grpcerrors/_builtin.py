"""The built-in conditions, read from contract.json, which other languages can read too.

CONTRACT.md says why their patterns match no more. `{{name}}` in one stands for a fragment.
"""

from __future__ import annotations

import re
from typing import Any

from grpc import StatusCode

from grpcerrors._condition import DATA, Catalogue, Condition, Dialect


class _BuiltInDialect(Dialect):
    """A dialect whose patterns the tests check, so that importing it need not compile them."""

    __slots__ = ()

    def __post_init__(self) -> None:
        pass


def _pattern(alternatives: list[str]) -> str:
    text = "|".join(alternatives)
    return re.sub(r"{{(\w+)}}", lambda found: _pattern([DATA["fragments"][found[1]]]), text)


def _dialect(row: dict[str, Any]) -> Dialect:
    row |= {key: _pattern(row[key]) for key in ("pattern", "unless")}
    codes = frozenset(name and StatusCode[name] for name in row.pop("codes"))
    return _BuiltInDialect(codes=codes, hints=tuple(row.pop("hints")), **row)


def _condition(row: dict[str, Any]) -> Condition:
    dialects = tuple(map(_dialect, row.pop("dialects")))
    return Condition(code=StatusCode[row.pop("code")], dialects=dialects, **row)


CATALOGUE = Catalogue(*map(_condition, DATA["conditions"]))
(
    MODEL_NOT_LOADED,
    MODEL_MISMATCH,
    MODEL_LOADING,
    LIVE_TRANSCRIPTION_UNSUPPORTED,
    STREAM_TRANSCRIPTION_UNSUPPORTED,
) = CATALOGUE

# What `explain` says of each rung, and of each reason of this project's router and model host.
ADVICE: dict[str, str] = DATA["other_reasons"]
EXPLANATIONS: dict[str, str] = DATA["explanations"]
