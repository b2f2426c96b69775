from __future__ import annotations

import base64
import contextlib
import importlib.metadata
import runpy
import shlex
import sys
from types import ModuleType
from typing import TYPE_CHECKING
from unittest import mock

import grpc
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from grpcerrors import cli, explain, model_not_loaded
from grpcerrors.cli import _inputs
from grpcerrors.cli._text import printable
from grpcerrors.testing import FakeRpcError
from tests.grpcerrors.support import errors
from tests.grpcerrors.support.command import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Capture = pytest.CaptureFixture[str]
SAID = "x: model not loaded"


def test_the_version_is_told(capsys: Capture) -> None:
    version = importlib.metadata.version("grpcerrors")
    assert run(capsys, "--version") == (0, f"grpcerrors {version}\n", "")


def test_the_module_is_the_command(capsys: Capture) -> None:
    with mock.patch("sys.argv", ["grpcerrors", "--version"]), pytest.raises(SystemExit) as end:
        runpy.run_module("grpcerrors", run_name="__main__")
    assert not end.value.code
    assert capsys.readouterr().out == run(capsys, "--version").out
    assert runpy.run_module("grpcerrors")["main"] is cli.main


def test_shells_are_helped_to_complete(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_GRPCERRORS_COMPLETE", "source_bash")
    ran = run(capsys)
    assert ran.exit_code == 0
    assert "complete" in ran.out


@pytest.mark.parametrize("command", ["", "check", "call", "explain"])
def test_each_help_fits_80_columns(capsys: Capture, command: str) -> None:
    ran = run(capsys, *command.split(), "--help")
    assert max(map(len, ran.out.splitlines())) <= 80


@pytest.mark.parametrize("command", ["check", "call", "explain"])
def test_each_help_shows_an_example_that_its_command_takes(capsys: Capture, command: str) -> None:
    ran = run(capsys, command, "--help")
    assert ran.exit_code == 0
    examples = [
        line.strip()
        for line in ran.out.splitlines()
        if line.startswith(f"    grpcerrors {command}")
    ]
    assert examples
    for example in examples:
        shown = run(capsys, *shlex.split(example)[1:], "--help")
        assert shown == ran


def test_bad_usage_is_one_line_that_says_where_to_look(capsys: Capture) -> None:
    ran = run(capsys, "check", "a:1", "--tiemout", "3")
    assert ran.exit_code == 2
    assert ran.err.startswith("Error: No such option")
    assert "--tiemout" in ran.err
    assert ran.err.lower().endswith("see grpcerrors check --help\n")
    assert ran.err.count("\n") == 1


def test_bad_usage_without_a_command_names_the_program(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = mock.Mock(side_effect=typer.BadParameter("odd"))
    monkeypatch.setattr("grpcerrors.cli._commands.app", fails)
    assert run(capsys).err == "Error: Invalid value: odd; see grpcerrors --help\n"


def test_an_interrupt_is_no_traceback(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = mock.Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr("grpcerrors.cli._commands.app", fails)
    assert run(capsys).exit_code == 130


def test_an_interrupt_during_the_imports_is_no_traceback(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> None:
            raise KeyboardInterrupt

    name = "grpcerrors.cli._commands"
    monkeypatch.setitem(sys.modules, name, Interrupted(name))
    assert run(capsys).exit_code == 130


def test_a_defect_of_the_command_is_not_hidden(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grpcerrors.cli._commands.app", mock.Mock(side_effect=ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        run(capsys)


def test_without_a_command_the_help_is_shown(capsys: Capture) -> None:
    ran = run(capsys)
    assert ran.exit_code == 2
    assert "explain" in ran.out + ran.err


@pytest.mark.parametrize("module", ["typer", "rich", "grpc_reflection"])
def test_without_the_extra_one_line_says_what_to_install(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    for loaded in [name for name in sys.modules if name.startswith(("grpcerrors.cli.", module))]:
        monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.delattr(cli, loaded.rpartition(".")[2], raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    ran = run(capsys, "--version")
    assert ran.exit_code == 2
    assert ran.err == "The command needs more packages: pip install 'grpcerrors[cli]'\n"


def test_another_missing_module_is_not_blamed_on_the_extra(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "grpcerrors.cli._commands", None)
    with pytest.raises(ModuleNotFoundError, match="_commands"):
        run(capsys, "--version")


@pytest.mark.parametrize("code", ["FAILED_PRECONDITION", "failed_precondition", "9", " 9 "])
def test_explain_says_what_explain_says(capsys: Capture, code: str) -> None:
    ran = run(capsys, "explain", "--code", code, "--message", SAID)
    error = FakeRpcError(grpc.StatusCode.FAILED_PRECONDITION, SAID)
    assert ran == (0, explain(error) + "\n", "")


@pytest.mark.parametrize("strip", ["", "="])
def test_explain_reads_details_with_and_without_padding(capsys: Capture, strip: str) -> None:
    error = model_not_loaded("x", model="m")
    text = base64.b64encode(errors.details_of(error)).decode().rstrip(strip)
    ran = run(capsys, "explain", "--code", "UNKNOWN", "--details-bin", text)
    met = FakeRpcError(grpc.StatusCode.UNKNOWN, "", error.trailing_metadata[:1])
    assert ran == (0, explain(met) + "\n", "")


def test_explain_reads_several_details(capsys: Capture) -> None:
    values = [errors.details_of(model_not_loaded(name)) for name in "xy"]
    options = [
        part for value in values for part in ("--details-bin", base64.b64encode(value).decode())
    ]
    ran = run(capsys, "explain", "--code", "UNKNOWN", *options)
    trailers = [("grpc-status-details-bin", value) for value in values]
    assert ran.out == explain(FakeRpcError(grpc.StatusCode.UNKNOWN, "", trailers)) + "\n"


def test_explain_reads_trailers(capsys: Capture) -> None:
    trailer = ("grpcerrors-unexecuted", "MODEL_NOT_LOADED")
    ran = run(capsys, "explain", "--code", "UNKNOWN", "--trailer", "=".join(trailer))
    met = FakeRpcError(grpc.StatusCode.UNKNOWN, "", [trailer])
    assert ran == (0, explain(met) + "\n", "")
    assert ran.out.startswith("model not loaded\n")


def test_explain_keeps_a_message_from_steering_the_terminal(capsys: Capture) -> None:
    ran = run(capsys, "explain", "--code", "UNKNOWN", "--message", "\x1b[31mred\x07")
    assert "\x1b" not in ran.out
    assert "\x07" not in ran.out


WRONG = [
    (
        ("explain", "--code", "OK"),
        "'OK' is not an error code; use one of CANCELLED (1), UNKNOWN (2)",
    ),
    (("explain", "--code", "0"), "FAILED_PRECONDITION (9)"),
    (("explain", "--code", "SOMETIMES"), "UNAUTHENTICATED (16)"),
    (("explain",), "--code"),
    (("explain", "--code", "9", "--details-bin", "%"), "'%' is not base64"),
    (("explain", "--code", "9", "--details-bin", "ZZZZZ"), "'ZZZZZ' is not base64"),
    (("explain", "--code", "9", "--details-bin", "日本"), "is not base64"),
    (("check",), "HOST:PORT"),
    (("check", "localhost"), "'localhost' is not HOST:PORT, as in 127.0.0.1:50051"),
    (("check", "localhost:0"), "is not HOST:PORT"),
    (("check", "localhost:65536"), "is not HOST:PORT"),
    (("check", "localhost:٣"), "is not HOST:PORT"),
    (("check", "http://localhost:1"), "is not HOST:PORT"),
    (("check", "::1:1"), "is not HOST:PORT"),
    (("check", "a:1", "--service", "backend/Backend"), "is not PACKAGE.SERVICE"),
    (("check", "a:1", "--method", "/backend.Backend/Predict"), "the service goes to --service"),
    (("check", "a:1", "--metadata", "token"), "'token' is not KEY=VALUE"),
    (("check", "a:1", "--metadata", "to ken=1"), "is not KEY=VALUE"),
    (("check", "a:1", "--metadata", "grpc-timeout=1"), "does not start with 'grpc-'"),
    (("check", "a:1", "--metadata", "token=é"), "must be printable ASCII"),
    (("check", "a:1", "--metadata", "token-bin=%"), "'%' is not base64"),
    (("check", "a:1", "--timeout", "0"), "'0' is not a number of seconds above 0"),
    (("check", "a:1", "--timeout", "nan"), "is not a number of seconds"),
    (("check", "a:1", "--timeout", "inf"), "is not a number of seconds"),
    (("check", "a:1", "--timeout", "soon"), "is not a number of seconds"),
    (("call", "a:1", "backend.Backend/Pre dict"), "is not SERVICE/METHOD, as in backend"),
    (("call", "a:1", "/"), "is not SERVICE/METHOD"),
    (("call", "a:1", "s.S/M", "--model", " m"), "is not printable ASCII without spaces around"),
    (("call", "a:1", "s.S/M", "--model", ""), "is not printable ASCII without spaces around"),
    (("call", "a:1", "s.S/M", "--proto", "/nowhere.proto"), "does not exist"),
    (("check", "a:1", "--wait", "0"), "'0' is not a number of seconds above 0"),
    (("check", "a:1", "--tls-ca", "/nowhere/ca.pem"), "No such file"),
]


@pytest.mark.parametrize(("args", "said"), WRONG, ids=[" ".join(args) for args, _ in WRONG])
def test_wrong_input_is_told_what_is_accepted(
    capsys: Capture, args: tuple[str, ...], said: str
) -> None:
    ran = run(capsys, *args)
    assert ran.exit_code == 2
    assert said in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("option", "content", "said"),
    [
        ("--tls-ca", "-----BEGIN PRIVATE KEY-----", "contains no certificate in PEM form"),
        ("--tls-ca", "-----BEGIN CERTIFICATE-----\nx", "cannot be read: it is damaged"),
        ("--tls-cert", "-----BEGIN CERTIFICATE-----", "need each other: give both"),
        ("--tls-key", "-----BEGIN CERTIFICATE-----", "contains no private key in PEM form"),
        ("--tls-key", "-----BEGIN PRIVATE KEY-----", "need each other: give both"),
        ("--token-file", "two words", "must contain one token"),
        ("--token-file", "", "must contain one token"),
    ],
)
def test_a_file_with_other_contents_is_told(
    capsys: Capture, tmp_path: Path, option: str, content: str, said: str
) -> None:
    path = tmp_path / "file"
    path.write_text(content, encoding="utf-8")
    ran = run(capsys, "health", "a:1", option, str(path))
    assert ran.exit_code == 2
    assert said in ran.err


@pytest.mark.parametrize("value", ["localhost:1", "10.0.0.1:65535", "[::1]:50051", "unix:50051"])
def test_addresses_are_accepted_as_they_are(value: str) -> None:
    assert _inputs.address(value) == value


@settings(max_examples=100)
@given(st.binary())
def test_base64_of_any_bytes_is_read_in_any_form(value: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(value).decode()
        assert _inputs.unbase64(text) == _inputs.unbase64(text.rstrip("=")) == value


@settings(max_examples=100)
@given(st.text(), st.sampled_from([_inputs.address, _inputs.metadatum, _inputs.status_code]))
def test_any_other_text_is_a_wrong_input(text: str, accept: Callable[[str], object]) -> None:
    with contextlib.suppress(typer.BadParameter):
        accept(text)


@settings(max_examples=100)
@given(st.text())
def test_what_is_printed_is_printable(text: str) -> None:
    assert printable(text).isprintable()
