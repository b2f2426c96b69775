"""Each fault fires its alert and no other: Prometheus' own rule tests, on a real router's samples.

The samples are taken while the fault is on; see tests/interop/support/recording.py for the time.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.interop.support.recording import Recording, scrape
from tests.router.support.faults import FAULTS, Fault, site

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
BOARD = ROOT / "deploy/grafana/grpcerrors.json"
RULES = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
PROMTOOL = shutil.which("promtool") or "promtool"

BEFORE, DURING = 3.0, 12.0
"""Real seconds of a recording, without the fault and with it."""


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        [PROMTOOL, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def camel(fault: str) -> str:
    return "".join(word.capitalize() for word in fault.split("-"))


def blamed(fault: Fault, recording: Recording) -> tuple[int, set[str]]:
    """Return a minute at which the fault's alert must fire, and the nodes that it must name.

    The pauses between failed loads grow, but not as SCALE does: at the end of the recording, the
    last failure may be more than five scaled minutes ago. In real time, it never is.
    """
    last = recording.minutes
    if fault.name != "load-fails":
        return last, {fault.node}
    for minute in range(last, 0, -1):
        about = {"result": "failed", "model": fault.model}
        nodes = recording.growing(minute, "router_loads_total", **about)
        if nodes:
            return minute, nodes
    raise AssertionError("no load failed")


def expected(fault: Fault, nodes: set[str]) -> list[dict[str, Any]]:
    """Return the alerts that a fault must fire: one, or one for each node that is to blame."""
    (rule,) = [rule for rule in RULES if rule["alert"] == camel(fault.name)]
    about = {"instance": "router-1"}
    text = json.dumps(rule["annotations"])
    if "$labels.model" in text and fault.model:
        about["model"] = fault.model
    alerts = []
    for node in sorted(nodes):
        labels = about | ({"node": node} if node else {})
        if "sum" not in rule["expr"] and "max by" not in rule["expr"]:
            labels["job"] = "grpcerrors-router"
        alerts.append(
            {
                "exp_labels": labels | rule["labels"],
                "exp_annotations": {
                    key: _rendered(value, labels) for key, value in rule["annotations"].items()
                },
            }
        )
    return alerts


def _rendered(text: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels.get(found[1], ""), text)


def rule_test(recording: Recording, fault: Fault | None) -> dict[str, Any]:
    """Return a file for `promtool test rules`.

    The alert of the fault fires while it is on; no other alert ever does.
    """
    checks = []
    for rule in RULES:
        fires: dict[int, list[dict[str, Any]]]
        fires = {minute: [] for minute in range(recording.minutes + 1)}
        if fault is not None and rule["alert"] == camel(fault.name):
            minute, nodes = blamed(fault, recording)
            fires = {minute: expected(fault, nodes)}
        checks += [
            {"eval_time": f"{minute}m", "alertname": rule["alert"], "exp_alerts": alerts}
            for minute, alerts in fires.items()
        ]
    return {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": recording.step,
        "tests": [
            {
                "interval": recording.step,
                "input_series": recording.series(),
                "alert_rule_test": checks,
            }
        ],
    }


async def test_each_fault_fires_its_alert_and_no_other(tmp_path: Path) -> None:
    failed = {}
    async with site(tmp_path, postgres=True) as made:
        address = made.gateway.addresses[1]
        healthy = Recording(address)
        await healthy.run(BEFORE)
        tests: dict[str, tuple[Recording, Fault | None]] = {"healthy": (healthy, None)}
        # A quarantine outlives its fault, so it comes last.
        for name in sorted(FAULTS, key=lambda name: name == "quarantine"):
            await recovered(address)
            recording = Recording(address)
            await recording.run(BEFORE)
            async with FAULTS[name](made) as fault:
                await recording.run(DURING)
            tests[name] = recording, fault
        exposition = scrape(address)
    for name, (recording, found) in tests.items():
        file = tmp_path / f"{name}.yml"
        file.write_text(yaml.safe_dump(rule_test(recording, found), width=10**6))
        try:
            promtool("test", "rules", str(file))
        except AssertionError as error:
            failed[name] = re.sub(r"(?s)\n\s*\n+", "\n", str(error))[:1500]
    assert not failed, "\n".join(f"{name}: {said}" for name, said in failed.items())
    check_names(exposition)


async def recovered(address: str) -> None:
    """Wait until the router has its registry and its nodes again, and the last fault's are gone."""
    left = r"node_reachable\{(?!node=\"(left|right)\")|load_age_seconds\{"
    trouble = re.compile(rf"^router_((registry_up|node_reachable{{.*}}) 0.0$|{left})", re.MULTILINE)
    async with asyncio.timeout(60):
        while trouble.search(await asyncio.to_thread(scrape, address)):
            await asyncio.sleep(0.1)


def check_names(exposition: str) -> None:
    """Every metric that the files in deploy/ name is one of a real router."""
    suffixes = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("",), "gauge": ("",)}
    real = {
        name + suffix
        for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", exposition, re.MULTILINE)
        for suffix in suffixes[kind]
    }
    for expression in [*(rule["expr"] for rule in RULES), *expressions(BOARD)]:
        named = set(re.findall(r"\b(?:router|rpc)_\w+(?=[{\[) ])|\brouter_\w+$", expression))
        named -= {"rpc_response_status_code"}
        assert named, expression
        assert named <= real, f"{named - real} in {expression}"


def expressions(board: Path) -> Iterable[str]:
    """Return the PromQL of a dashboard."""
    data = json.loads(board.read_text())
    for panel in data["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for note in data["annotations"]["list"]:
        yield note["expr"]


def test_the_expressions_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{index}", "expr": each.replace("$__rate_interval", "5m")}
        for index, each in enumerate(expressions(BOARD))
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))


def test_the_example_configuration_is_valid() -> None:
    assert "SUCCESS" in promtool("check", "config", str(ROOT / "deploy/prometheus/prometheus.yml"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do_and_where_to_read_on(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    heading = notes["runbook_url"].partition("#")[2]
    page = (ROOT / "docs/troubleshooting.md").read_text()
    headings = {
        line.removeprefix("## ").lower().replace(" ", "-")
        for line in page.splitlines()
        if line.startswith("## ")
    }
    assert heading in headings
    assert camel(heading) == rule["alert"]
    assert "$labels." in notes["summary"]


def test_there_is_one_alert_for_each_fault() -> None:
    alerts = sorted(rule["alert"] for rule in RULES)
    assert sorted(camel(name) for name in FAULTS) == alerts
    page = (ROOT / "docs/how-to/observe.md").read_text()
    assert sorted(re.findall(r"^\| ([A-Z]\w+) \|", page, re.MULTILINE)) == alerts


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    taken = [
        (column, row)
        for panel in json.loads(BOARD.read_text())["panels"]
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for row in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(column for column, _ in taken) < 24  # Grafana's grid
