"""`grpcerrors check` finds every backend conforming, however its model was unloaded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from grpcerrors.cli import main
from grpcerrors_backends.host.service import implemented
from grpcerrors_backends.registry import CATALOGUE, MissingExtraError, find
from grpcerrors_protocol import backend_pb2 as pb

from .support.hosting import PATIENCE, UNINITIALIZED, HostProcess, host, until
from .support.models import load

FIELDS: dict[str, dict[str, Any]] = {
    "cloud_proxy": {"Proxy": pb.ProxyOptions(upstream_url="http://127.0.0.1:9")},
}


class Check:
    """The command, run in this process, because its start is not tested here."""

    def __init__(
        self, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model = find(name)
        self.implemented = {rpc.name for rpc in implemented(model)}
        if model.inputs:
            self.implemented.add("ModelInfer")  # of the Open Inference Protocol
        self.monkeypatch = monkeypatch
        self.capsys = capsys

    def __call__(self, process: HostProcess, *arguments: str) -> None:
        """Expect exit status 0, and that exactly the implemented RPCs are typed."""
        command = ["grpcerrors", "check", process.address, "--format", "json", *arguments]
        self.monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as done:
            main()
        output = self.capsys.readouterr()
        assert not done.value.code, output
        services = json.loads(output.out)["services"]
        rows = [row for service in services for row in service["rpcs"]]
        assert {row["rpc"] for row in rows if row["verdict"] == "typed"} == self.implemented
        assert all(row["resendable"] for row in rows if row["verdict"] == "typed"), rows


@pytest.fixture(params=CATALOGUE)
def name(request: pytest.FixtureRequest) -> str:
    backend = str(request.param)
    try:
        find(backend)
    except MissingExtraError as error:
        pytest.skip(str(error))
    return backend


@pytest.mark.slow
def test_every_rpc_is_typed_however_the_model_went(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check = Check(name, monkeypatch, capsys)
    fields = FIELDS.get(name, {})
    with host(name) as process:
        check(process)

        load(process, **fields)
        process.free()
        check(process)

        load(process, **fields)
        other = pb.ModelOptions(Model="other", **fields)
        assert process.stub.LoadModel(other, timeout=PATIENCE).success
        check(process, "--metadata", "x-model-id=m")

        broken = pb.ModelOptions(Model="m", Options=["no_such_option:1"], **fields)
        assert not process.stub.LoadModel(broken, timeout=PATIENCE).success
        check(process)
    with host(name, "--idle-ttl", 0.2) as process:
        load(process, **fields)
        until(lambda: process.status().state == UNINITIALIZED)
        check(process)
