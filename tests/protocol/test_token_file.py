from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from grpcerrors_protocol import token_file
from grpcerrors_protocol.seldom import Seldom
from grpcerrors_protocol.token_file import TokenFile, TokenFileError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(token_file, "CHECK_INTERVAL", 0.0)
    made = tmp_path / "token"
    made.touch(0o600)
    return made


def test_a_file_has_one_token_on_each_line(path: Path) -> None:
    path.write_text("\n# for the move to the new one\n  grt_new \n\nold\r\n")
    file = TokenFile(path)
    assert file.tokens == ("grt_new", "old")
    assert file.header == ("authorization", "Bearer grt_new")


def test_the_file_is_read_again_when_it_changes_and_only_then(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text("one")
    file = TokenFile(path, "--router-token-file")
    path.with_name("next").write_text("two")
    path.with_name("next").replace(path)
    assert file.tokens == ("two",)
    path.write_text("a b")
    for _ in range(3):
        assert file.tokens == ("two",)
    path.unlink()
    assert file.tokens == ("two",)
    broken, gone = [
        line for line in caplog.messages if line.endswith("the tokens of before stay in use")
    ]
    assert broken.startswith(f"--router-token-file {path} has a line that is no token")
    assert gone.startswith(f"--router-token-file {path} cannot be read")


def test_the_file_is_not_looked_at_for_each_call(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_file, "CHECK_INTERVAL", float("inf"))
    path.write_text("one")
    file = TokenFile(path)
    path.unlink()
    path.write_text("two")
    assert file.tokens == ("one",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has no token; write one on a line"),
        (b"# none\n\n", "has no token; write one on a line"),
        (b"two words", "has a line that is no token"),
        ("é".encode(), "has a line that is no token"),
        (b"good\nbad\x00", "has a line that is no token"),
        (b"x" * 5000, "has a line that is no token"),
        (b"x\n" * 40_000, "has more than 64 KiB"),
    ],
)
def test_what_is_no_token_file_is_refused_without_repeating_it(
    path: Path, data: bytes, message: str
) -> None:
    path.write_bytes(data)
    with pytest.raises(TokenFileError, match=message) as caught:
        TokenFile(path)
    assert str(caught.value).startswith(f"--token-file {path} ")
    assert "words" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_file_that_others_may_read_is_warned_of(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text("one")
    TokenFile(path)
    assert not caplog.records
    path.chmod(0o604)
    TokenFile(path)
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    assert "others may read" in line.message
    assert "one" not in line.message.replace(str(path), "")


def test_something_happens_at_most_once_in_an_interval() -> None:
    now = 0.0
    seldom = Seldom(1.0, clock=lambda: now)
    assert seldom.now() == 0
    now = 0.5
    assert seldom.now() is None
    assert seldom.now() is None
    now = 1.0
    assert seldom.now() == 2
    now = 3.0
    assert seldom.now() == 0
