"""The files of other languages by themselves: all vectors, and thousands of errors as in Python."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import classify
from tests.grpcerrors.support.answers import ANSWERS, MORE_ANSWERS
from tests.grpcerrors.support.errors import sync_error
from tests.interop.support import errors, peers, vectors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

pytestmark = pytest.mark.interop

MARKS = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb\u2039\u203a\u300c\u300d\u201e"


@pytest.fixture(scope="module", params=peers.PEERS)
def peer(request: pytest.FixtureRequest, building: dict[str, Future[peers.Peer]]) -> peers.Peer:
    return building[request.param].result()


def test_all_vectors(peer: peers.Peer, tmp_path: Path) -> None:
    expected = vectors.flat()
    asked = tmp_path / "vectors.tsv"
    lines = [vectors.line(vectors.unanswered(cells)) for cells in expected]
    asked.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for answered, right in zip(peer.answers(asked), expected, strict=True):
        assert answered == right


def test_rustfmt_changes_nothing() -> None:
    program = peers.needs(shutil.which("rustfmt"), "rustfmt")
    sources = [str(each) for each in (peers.LANGUAGES / "rust").glob("*.rs")]
    subprocess.run([program, "--edition", "2021", "--check", *sources], check=True)


def test_clippy_finds_nothing(tmp_path: Path) -> None:
    program = peers.needs(shutil.which("clippy-driver"), "clippy-driver")
    folder = peers.LANGUAGES / "rust"
    strict = [program, "--edition", "2021", "-D", "warnings", f"--out-dir={tmp_path}"]
    environment = {**os.environ, "CLIPPY_CONF_DIR": str(folder)}
    for command in ([*strict, "vectors.rs"], [*strict, "--test", "grpcerrors_test.rs"]):
        subprocess.run(command, cwd=folder, env=environment, check=True)


def test_its_own_tests(peer: peers.Peer) -> None:
    peer.test()


def test_words_mean_what_they_mean_in_python(peer: peers.Peer, tmp_path: Path) -> None:
    said = sorted({answer.message for answer in ANSWERS + MORE_ANSWERS})
    messages = [*said, *(text for each in said for text in quoting(each)), *scrambled()]
    codes = [*(code for code in grpc.StatusCode if code is not grpc.StatusCode.OK), None]
    lines = [
        ["detect", message, "" if code is None else str(code.value[0]), message]
        for message, code in zip(messages, itertools.cycle(codes), strict=False)
    ] + [["detect", message, "2", message] for message in messages]
    asked = tmp_path / "words.tsv"
    asked.write_text(
        "".join(f"{vectors.line([*cells, *[''] * 5, '0'])}\n" for cells in lines), encoding="utf-8"
    )
    answered = peer.answers(asked)
    wrong = [
        (cells, right)
        for cells in answered
        if cells[4:7] != (right := _expected(cells[2], cells[3]))
    ]
    assert len(answered) == len(lines)
    assert not wrong, (len(wrong), wrong[:10])


# Go's protobuf 1.3 reads 4 of them in another way than Python's.
@pytest.mark.parametrize("peer", ["node", "cpp", "java", "rust"], indirect=True)
def test_broken_trailers_mean_what_they_mean_in_python(peer: peers.Peer, tmp_path: Path) -> None:
    asked = tmp_path / "broken.tsv"
    lines = [["detect", "", "9", "no", *[""] * 5, *each] for each in broken()]
    asked.write_text("".join(f"{vectors.line(cells)}\n" for cells in lines), encoding="utf-8")
    answered = peer.answers(asked)
    wrong = [
        (right, cells)
        for cells in answered
        if cells[4:9] != (right := _expected_of_trailers([*batched(cells[10:])]))
    ]
    assert len(answered) == len(lines)
    assert not wrong, (len(wrong), wrong[:10])


def broken() -> Iterator[list[str]]:
    """Yield trailers, as cells, with one or two bytes of the details changed."""
    some = random.Random(9)  # the same ones each time
    sent = [value for row in vectors.DETECT.values() for value in row["details_hex"] or () if value]
    for _ in range(4000):
        details = bytearray.fromhex(some.choice(sent))
        for _ in range(some.randint(1, 2)):
            at = some.randrange(len(details))
            match some.randrange(3):
                case 0:
                    details[at] = some.randrange(256)
                case 1:
                    details[at] ^= 1 << some.randrange(8)
                case _:
                    details[at:at] = bytes([some.randrange(256)])
        plain = some.choice(
            [[], [errors.UNEXECUTED, "MODEL_MISMATCH"], [errors.UNEXECUTED, "x.org/QUOTA"]]
        )
        yield [str(1 + len(plain) // 2), errors.DETAILS, details.hex(), *plain]


def _expected_of_trailers(pairs: list[tuple[str, str]]) -> list[str]:
    metadata: Any = tuple(
        (name, bytes.fromhex(value) if name == errors.DETAILS else value) for name, value in pairs
    )
    found = classify(sync_error(grpc.StatusCode.FAILED_PRECONDITION, "no", metadata))
    reason = found.condition.reason if found.condition else ""
    evidence = found.evidence.value if found.evidence else ""
    delay = "" if found.retry_after is None else f"{found.retry_after:.15g}"
    return [reason, evidence, str(int(found.unexecuted)), delay, ""]


def batched(cells: list[str]) -> Iterator[tuple[str, str]]:
    return zip(cells[::2], cells[1::2], strict=True)


def quoting(words: str) -> list[str]:
    """Return messages that quote words, as handlers do."""
    marks = ['"{}"', "'{}'", "`{}`", "b'{}'", "“{}”", "«{}»", "「{}」", "don't {}", "'a' {} \"b"]
    return [f"no voice {mark.format(words)}, isn't it" for mark in marks]


def scrambled() -> list[str]:
    """Return texts of words and quotation marks in any order."""
    some = random.Random(8)  # the same ones each time
    parts = ["model not loaded", "model", "model is loading", "unimplemented", ".wav", ": ", "T"]
    parts += ["Exception calling application: ", "b", "s", " ", "\n", "語", "é", "\u017f", *MARKS]
    return ["".join(some.choices(parts, k=some.randint(1, 9))) for _ in range(4000)]


def _expected(code: str, message: str) -> list[str]:
    error: Any = sync_error(vectors.CODES[int(code)], message) if code else Exception(message)
    found = classify(error)
    reason = found.condition.reason if found.condition else ""
    return [reason, found.evidence.value if found.evidence else "", str(int(found.unexecuted))]
