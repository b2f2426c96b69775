"""Load options: values are checked, and misspelt names are reported."""

from __future__ import annotations

import pytest

from grpcerrors_backends.model import LoadError
from grpcerrors_backends.settings import Settings
from grpcerrors_protocol import backend_pb2 as pb


def settings(*entries: str) -> Settings:
    return Settings(pb.ModelOptions(Options=entries))


def test_reads_values_and_defaults() -> None:
    given = settings("engine: whisper", "pace:1.5", "url:http://x")
    assert given.choice("engine", "sphinx", ("sphinx", "whisper")) == "whisper"
    assert given.number("pace", 1) == 1.5
    assert given.number("noise", 0.5) == 0.5
    assert given.text("url") == "http://x"
    given.done()


@pytest.mark.parametrize("value", ["", "x", "nan", "-1", "2.1", "inf"])
def test_refuses_what_is_no_number_in_range(value: str) -> None:
    with pytest.raises(LoadError, match="from 0 to 2"):
        settings(f"pace:{value}").number("pace", 1, low=0, high=2)


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(LoadError, match="one of sphinx, whisper"):
        settings("engine:vosk").choice("engine", "sphinx", ("sphinx", "whisper"))
    with pytest.raises(LoadError, match="key:value"):
        settings("gpu")
    misspelt = settings("paec:2")
    misspelt.number("pace", 1)
    with pytest.raises(LoadError, match="unknown load options paec; known options: pace"):
        misspelt.done()
