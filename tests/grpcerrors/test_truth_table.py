"""Every combination of details, code and text has the answer that truth_table.txt gives it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from grpc import StatusCode

from grpcerrors import Evidence, classify, explain, is_model_not_loaded
from tests.grpcerrors.support import errors
from tests.grpcerrors.support.serving import Answer, Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TEXT = {"hit": "rfdetr: Model not loaded", "miss": "something else"}


class Row(NamedTuple):
    """A row of the table."""

    details: str
    code: StatusCode | None
    text: str
    not_loaded: bool
    evidence: Evidence | None

    @property
    def trailers(self) -> errors.Trailers:
        """The trailing metadata with these details."""
        ours = errors.status(self.code, self.text, ("grpcerrors", "MODEL_NOT_LOADED"))
        values = {
            "ours": [ours],
            "other reason": [errors.status(self.code, self.text, ("grpcerrors", "FROM_2030"))],
            "foreign": [errors.status(self.code, self.text, ("example.com", "QUOTA"))],
            "malformed": [b"\xff\xff\xff\xff"],
            "absent": [],
            "several": [ours, errors.status(self.code, self.text, ("grpcerrors", "FROM_2030"))],
        }
        return errors.trailers(*values[self.details])


def _rows() -> list[Row]:
    lines = Path(__file__).with_name("truth_table.txt").read_text().splitlines()[1:]
    rows = []
    for line in lines:
        details, code, text, not_loaded, decided_by = map(str.strip, f"{line} ".split("|"))
        rows.append(
            Row(
                details,
                None if code == "none" else StatusCode[code],
                _TEXT[text],
                {"yes": True, "no": False}[not_loaded],
                Evidence(decided_by) if decided_by else None,
            )
        )
    return rows


ROWS = _rows()
# A stream call without a code is still live, and a server cannot end a call without one.
CODED = [row for row in ROWS if row.code]


def _each(*rows: Row) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=lambda row: "-".join(map(str, row[:3])))


def test_the_table_is_whole() -> None:
    """6 kinds of details, 4 of codes and 2 of texts, each combination once."""
    assert len({row[:3] for row in ROWS}) == len(ROWS) == 6 * 4 * 2


def _assert_answer(row: Row, err: object) -> None:
    assert is_model_not_loaded(err) is row.not_loaded
    assert classify(err).evidence is row.evidence
    assert explain(err).startswith("model not loaded") is row.not_loaded


@_each(*ROWS)
@pytest.mark.parametrize("make", [errors.sync_error, errors.aio_error])
def test_answer(
    row: Row, make: Callable[[StatusCode | None, str, errors.Trailers], Exception]
) -> None:
    """The answer is that of the table, for sync and aio errors, wrapped or not."""
    err = make(row.code, row.text, row.trailers)
    _assert_answer(row, err)
    _assert_answer(row, errors.wrapped(err))


@_each(*CODED)
def test_answer_to_a_stream(row: Row) -> None:
    """The same for the error that a stream call of a sync channel is."""
    err = errors.stream_error(row.code, row.text, row.trailers)
    _assert_answer(row, err)
    _assert_answer(row, errors.wrapped(err))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Connect to a real server that fails as it is told."""
    with Answer.serve() as target, Client(target) as connected:
        yield connected


@_each(*CODED)
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_answer_over_a_channel(row: Row, client: Client, *, stream: bool) -> None:
    """The same over a real channel, sync and aio."""
    assert row.code
    answer = Answer(row.code, row.text, row.trailers)
    _assert_answer(row, client.sync_failure(answer, stream=stream))
    _assert_answer(row, client.aio_failure(answer, stream=stream))
