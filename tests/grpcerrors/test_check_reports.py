"""How a report is printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from grpcerrors import model_not_loaded
from tests.grpcerrors.support import backend_server as backend
from tests.grpcerrors.support.command import check, run

TYPED = backend.fails(model_not_loaded("x"))
PLAIN = backend.aborts(grpc.StatusCode.FAILED_PRECONDITION, "x: model not loaded")

Capture = pytest.CaptureFixture[str]


def test_a_conforming_backend_passes(capsys: Capture) -> None:
    with backend.serve({"Predict": TYPED, "TTS": TYPED}) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
    assert ran.exit_code == 0
    assert "2 typed, 32 not implemented" in ran.out
    assert "Conforming: every implemented RPC" in ran.out
    assert "\x1b" not in ran.out
    assert max(map(len, ran.out.splitlines())) <= 100


def test_a_backend_without_the_contract_is_told_what_to_do(capsys: Capture) -> None:
    rpcs = {
        "Predict": TYPED,
        "PredictStream": backend.aborts(grpc.StatusCode.INTERNAL, "late", after=2),
        "Score": PLAIN,
        "VAD": backend.aborts(grpc.StatusCode.UNKNOWN, "\x1b[31mred\n" + "and long " * 50),
    }
    with backend.serve(rpcs) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}")
    assert ran.exit_code == 1
    assert "1 typed, 1 text only, 2 invisible, 30 not implemented" in ran.out
    assert "(after 2 messages) late" in ran.out
    assert "\\x1b[31mred\\nand long" in ran.out
    assert "\x1b" not in ran.out
    assert max(map(len, ran.out.splitlines())) <= 100
    assert "a router has to guess from the words" in ran.out
    assert "interceptors=[ModelGuard(NAME)]" in ran.out
    assert f"  grpcerrors check 127.0.0.1:{port} --method VAD --protocol localai\n" in ran.out


def test_a_terminal_gets_colors_and_its_own_width(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with backend.serve({"Predict": TYPED}) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}", "--method", "Predict")
    assert "\x1b[32mtyped" in ran.out
    assert max(line.count("─") for line in ran.out.splitlines()) == 78


def test_rpcs_that_are_not_implemented_are_shown_on_demand(capsys: Capture) -> None:
    with backend.serve({"Predict": TYPED}) as port:
        short = run(capsys, "check", f"127.0.0.1:{port}")
        whole = run(capsys, "check", f"127.0.0.1:{port}", "--all-rows")
    assert "VAD" not in short.out
    assert "VAD" in whole.out
    assert "1 typed, 33 not implemented" in short.out


def test_json_has_all_that_is_known(capsys: Capture) -> None:
    rpcs = {"Predict": TYPED, "TTS": backend.answers, "VAD": backend.never_ends}
    methods = ("--method", "Predict", "--method", "TTS", "--method", "VAD", "--method", "TTS")
    with backend.serve(rpcs) as port:
        checked = check(capsys, port, *methods)
    again = f"grpcerrors check 127.0.0.1:{port} --method {{}} --protocol localai"
    predict = {
        "rpc": "Predict",
        "verdict": "typed",
        "code": "FAILED_PRECONDITION",
        "message": "x: model not loaded",
        "messages": 0,
        "condition": "MODEL_NOT_LOADED",
        "evidence": "details",
        "resendable": True,
        "why": "",
        "again": again.format("Predict"),
    }
    nothing = {"condition": None, "evidence": None, "resendable": None}
    tts = {
        "rpc": "TTS",
        "verdict": "invisible",
        "code": "OK",
        "message": "",
        "messages": 1,
        "why": "it answers OK with an error inside, where no router looks",
        "again": again.format("TTS"),
    }
    vad = {
        "rpc": "VAD",
        "verdict": "invisible",
        "code": None,
        "message": "still streaming after 100 messages",
        "messages": 100,
        "why": "",
        "again": again.format("VAD"),
    }
    service = {
        "service": "backend.Backend",
        "protocol": "localai",
        "source": "command line",
        "model": None,
        "rpcs": [predict, tts | nothing, vad | nothing],
        "uncalled": [],
    }
    assert checked.report == {
        "version": 2,
        "address": f"127.0.0.1:{port}",
        "conforming": False,
        "services": [service],
    }


def test_long_texts_are_whole_in_json(capsys: Capture) -> None:
    text = "long " * 500
    with backend.serve({"Predict": backend.aborts(grpc.StatusCode.INTERNAL, text)}) as port:
        checked = check(capsys, port, "--method", "Predict")
    assert checked.rows[0]["message"] == text


@pytest.mark.slow
def test_the_installed_command_checks_and_exits() -> None:
    command = Path(sys.executable).with_name("grpcerrors")
    with backend.serve({"Predict": PLAIN}) as port:
        args = [str(command), "check", f"127.0.0.1:{port}", "--method", "Predict"]
        args += ["--format", "json"]
        ran = subprocess.run(args, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    ((row,),) = (service["rpcs"] for service in json.loads(ran.stdout)["services"])
    assert row["verdict"] == "text only"
