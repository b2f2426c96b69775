"""The rows of grpcerrors/vectors.json, and of vectors.tsv, which holds the same in a flat form.

After a change: `python -m tests.grpcerrors.support.make_vectors`.

A build row is an error as the contract builds it, so its bytes come from the library. The detect
rows are in `detect_rows`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpcerrors
from grpcerrors import (
    LIVE_TRANSCRIPTION_UNSUPPORTED,
    MODEL_LOADING,
    MODEL_MISMATCH,
    MODEL_NOT_LOADED,
    STREAM_TRANSCRIPTION_UNSUPPORTED,
    Condition,
    ContractError,
)
from tests.grpcerrors.support.detect_rows import detect_rows
from tests.grpcerrors.support.flat_vectors import flat

PATH = Path(grpcerrors.__file__).with_name("vectors.json")
FLAT_PATH = PATH.with_suffix(".tsv")
Row = dict[str, Any]


def _built() -> list[Row]:
    kanji = "日本語モデル"
    return [
        _build("not loaded", MODEL_NOT_LOADED, backend="rfdetr"),
        _build("not loaded, model named", MODEL_NOT_LOADED, backend="rfdetr", model="base.gguf"),
        _build("not loaded, handler had begun", MODEL_NOT_LOADED, started=True, backend="rfdetr"),
        _build("not loaded, backend empty", MODEL_NOT_LOADED, backend=""),
        _build("not loaded, CJK", MODEL_NOT_LOADED, backend="語り", model=kanji),
        _build("not loaded, NUL", MODEL_NOT_LOADED, backend="rf\0detr"),
        _build("not loaded, newlines", MODEL_NOT_LOADED, backend="rf\r\ndetr\n"),
        _build("not loaded, percent", MODEL_NOT_LOADED, backend="100%25 sure"),
        _build("not loaded, beyond the BMP", MODEL_NOT_LOADED, backend="🦙.cpp"),
        _build("not loaded, backend cut", MODEL_NOT_LOADED, backend="rfdetr" * 1000),
        _build("not loaded, CJK cut", MODEL_NOT_LOADED, backend="rfdetr", model=kanji * 500),
        _build("not loaded, retry named", MODEL_NOT_LOADED, retry_after=0.25, backend="rfdetr"),
        _build("loading", MODEL_LOADING, retry_after=1.0, backend="rfdetr"),
        _build("loading, model", MODEL_LOADING, retry_after=2.5, backend="rfdetr", model=kanji),
        _build("loading, at once", MODEL_LOADING, retry_after=0.0, backend="rfdetr"),
        _build("loading, no delay", MODEL_LOADING, backend="rfdetr"),
        _build("loading, cut", MODEL_LOADING, retry_after=90.0, backend="rfdetr" * 1000),
        _build("mismatch", MODEL_MISMATCH, backend="vllm", loaded="a", requested="b"),
        _build("mismatch, nothing named", MODEL_MISMATCH, backend="vllm", loaded="", requested=""),
        _build("mismatch, quotes", MODEL_MISMATCH, backend="x", loaded="'a\"", requested='"b'),
        _build("mismatch, cut", MODEL_MISMATCH, backend="x", loaded="a" * 5000, requested="b"),
        _build(
            "live transcription",
            LIVE_TRANSCRIPTION_UNSUPPORTED,
            backend="whisper",
            reason="offline",
        ),
        _build(
            "streaming transcription",
            STREAM_TRANSCRIPTION_UNSUPPORTED,
            backend="whisper",
            reason="offline",
        ),
    ]


def _build(
    name: str,
    condition: Condition,
    *,
    started: bool = False,
    retry_after: float | None = None,
    **fields: str,
) -> Row:
    error = ContractError(condition, started=started, retry_after=retry_after, **fields)
    trailers: dict[str, Any] = dict(error.trailing_metadata)
    return {
        "name": name,
        "condition": condition.reason,
        "fields": fields,
        "started": started,
        "retry_after": retry_after,
        "code": error.code.value[0],
        "message": error.details,
        "details_hex": trailers.pop("grpc-status-details-bin").hex(),
        "trailers": [list(pair) for pair in trailers.items()],
    }


def rows() -> dict[str, Any]:
    """Return what vectors.json holds."""
    return {"version": 1, "build": _built(), "detect": detect_rows()}


if __name__ == "__main__":
    made = rows()
    PATH.write_text(json.dumps(made, indent=1) + "\n", encoding="ascii")
    FLAT_PATH.write_text(flat(made), encoding="utf-8", newline="\n")
