"""The flat form of the vectors, for a language without a JSON reader. CONTRACT.md describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = dict[str, Any]

_BUILD_COLUMNS = ("name", "condition", "started", "retry_after", "code", "message")
_DETECT_COLUMNS = tuple(
    "name code message condition evidence unexecuted retry_after held".split()  # noqa: SIM905
)
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})


def flat(document: dict[str, Any]) -> str:
    """Return what vectors.json holds in the flat form."""
    details = "grpc-status-details-bin"
    lines = [
        ["#build", *_BUILD_COLUMNS, "trailers", "(name, value)...", "fields", "(name, value)..."],
        ["#detect", *_DETECT_COLUMNS, "trailers", "(name, value)..."],
    ]
    for row in document["build"]:
        trailers = [[details, row["details_hex"]], *row["trailers"]]
        given = [*row["fields"].items()]
        lines.append(["build", *_cells(row, _BUILD_COLUMNS), *_pairs(trailers), *_pairs(given)])
    for row in document["detect"]:
        trailers = [*([details, value] for value in row["details_hex"] or ()), *row["trailers"]]
        lines.append(["detect", *_cells(row, _DETECT_COLUMNS), *_pairs(trailers)])
    return "".join("\t".join(cell.translate(_ESCAPES) for cell in line) + "\n" for line in lines)


def _cells(row: Row, columns: Sequence[str]) -> list[str]:
    return [_cell(row[name]) for name in columns]


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:g}"  # as printf writes it
    return "" if value is None else str(value)


def _pairs(pairs: Sequence[Sequence[str]]) -> list[str]:
    return [str(len(pairs)), *(text for pair in pairs for text in pair)]
