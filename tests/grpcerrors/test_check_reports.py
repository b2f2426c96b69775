"""How a report is printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import grpc
import pytest

from grpcerrors import model_not_loaded
from tests.grpcerrors.support import backend_server as backend
from tests.grpcerrors.support import ports
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


MIXED = {
    "Predict": TYPED,
    "Score": backend.answers,
    "TTS": backend.aborts(grpc.StatusCode.INTERNAL, "a|b `c` <d>\x00\x1b[31m\ufffe"),
    "VAD": PLAIN,
}
# What GitHub's and GitLab's readers of JUnit reports know (the schema of Ant and Jenkins).
ELEMENTS = {
    "testsuites": ({"name"}, {"testsuite"}),
    "testsuite": (
        {"name", "hostname", "tests", "failures", "errors", "skipped", "time"},
        {"testcase"},
    ),
    "testcase": ({"classname", "name", "time"}, {"failure", "error", "skipped"}),
    "failure": ({"message", "type"}, set()),
    "error": ({"message"}, set()),
    "skipped": ({"message"}, set()),
}


def junit(text: str) -> ET.Element:
    """Parse a JUnit report; fail if its shape is not that of the schema."""
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    for element in root.iter():
        attributes, children = ELEMENTS[element.tag]
        assert {*element.attrib} == attributes
        assert {child.tag for child in element} <= children
        if seconds := element.get("time"):
            assert float(seconds) >= 0
    for suite in root:
        cases = suite.findall("testcase")
        assert all(len(case) <= 1 for case in cases)
        counted = {"tests": len(cases)}
        for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            counted[count] = len(suite.findall(f"testcase/{tag}"))
        assert {name: int(suite.get(name, "")) for name in counted} == counted
    return root


def test_junit_has_a_case_for_each_rpc(capsys: Capture) -> None:
    with backend.serve(MIXED) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}", "--format", "junit")
        whole = run(capsys, "check", f"127.0.0.1:{port}", "--format", "junit", "--all-rows")
    assert (ran.exit_code, ran.err) == (1, "")
    (suite,) = junit(ran.out)
    assert suite.get("name") == "backend.Backend"
    cases = {case.get("name"): case for case in suite}
    assert cases.keys() == MIXED.keys()
    assert not len(cases["Predict"])
    failures = {name: case[0] for name, case in cases.items() if len(case)}
    assert {name: each.get("type") for name, each in failures.items()} == {
        "Score": "invisible",
        "TTS": "invisible",
        "VAD": "text only",
    }
    text = "INTERNAL: a|b `c` <d>\\x00\\x1b[31m\\ufffe"
    assert failures["TTS"].get("message") == f"invisible: {text}"
    again = f"grpcerrors check 127.0.0.1:{port} --method TTS --protocol localai"
    assert failures["TTS"].text == f"{text}\n{again}"
    assert int(junit(whole.out)[0].get("skipped", "")) == 30


def test_markdown_is_a_table_that_a_server_cannot_break(capsys: Capture) -> None:
    with backend.serve(MIXED) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}", "--format", "markdown")
    assert (ran.exit_code, ran.err) == (1, "")
    lines = ran.out.splitlines()
    assert lines[0] == "### `grpcerrors check`: not conforming"
    assert lines[4:10] == [
        "| RPC | code | text | verdict |",
        "|---|---|---|---|",
        "| `Predict` | FAILED_PRECONDITION | `x: model not loaded` | typed |",
        "| `Score` | OK |  | invisible |",
        "| `TTS` | INTERNAL | `a\\|b 'c' <d>\\x00\\x1b[31m\\ufffe` | invisible |",
        "| `VAD` | FAILED_PRECONDITION | `x: model not loaded` | text only |",
    ]
    again = f"grpcerrors check 127.0.0.1:{port} --method {{}} --protocol localai"
    assert lines[-5:] == ["```sh", *map(again.format, ("Score", "TTS", "VAD")), "```"]


def test_markdown_of_a_conforming_backend_is_short(capsys: Capture) -> None:
    with backend.serve({"Predict": TYPED}) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}", "--format", "markdown")
    assert ran.exit_code == 0
    assert ran.out.startswith("### `grpcerrors check`: conforming\n")
    assert "```" not in ran.out
    assert "\n\nConforming: every implemented RPC answers with the typed error, and" in ran.out


def test_markdown_of_nothing_has_no_table(capsys: Capture) -> None:
    with backend.serve({}) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}", "--format", "markdown")
    assert ran.exit_code == 1
    assert "34 not implemented\n\nNot conforming: no RPC that was called" in ran.out


def test_what_could_not_be_checked_is_reported_in_each_format(capsys: Capture) -> None:
    with ports.refusing() as port:
        args = ("check", f"127.0.0.1:{port}", "--wait", "0.3", "--format")
        as_junit = run(capsys, *args, "junit")
        as_markdown = run(capsys, *args, "markdown")
    assert as_junit.exit_code == as_markdown.exit_code == 2
    why = as_junit.err.removeprefix("Error: ").rstrip("\n")
    assert why.startswith(f"cannot reach 127.0.0.1:{port}")
    (error,) = junit(as_junit.out).iter("error")
    assert error.get("message") == why
    heading, _, said = as_markdown.out.splitlines()
    assert heading == "### `grpcerrors check`: nothing checked"
    assert said.startswith(f"`127.0.0.1:{port}`: cannot reach 127.0.0.1:{port}")
