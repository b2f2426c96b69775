"""The README's code runs as it stands."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import grpc
import pytest

import grpcerrors
from grpcerrors.testing import FakeRpcError

_README = Path(__file__).parent.parent / "README.md"


def _block(holds: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", _README.read_text(), re.DOTALL)
    [block] = [block for block in blocks if holds in block]
    return str(block)


def _run(block: str, **names: Any) -> dict[str, Any]:
    exec(compile(block, "README.md", "exec"), names)
    return names


def test_a_backend() -> None:
    names = _run(_block("grpc.server("))
    assert isinstance(names["server"], grpc.Server)


def test_a_router() -> None:
    """The stale entry is removed, and the caller gets its error."""
    error = grpcerrors.model_not_loaded("x")
    refused = FakeRpcError(error.code, error.details, error.trailing_metadata)
    registry = mock.Mock()
    names = {
        "grpc": grpc,
        "stub": SimpleNamespace(Predict=mock.Mock(side_effect=refused)),
        "registry": registry,
        "node": "n",
        "model": "m",
        "request": None,
    }
    with pytest.raises(grpc.RpcError):
        _run(_block("is_model_not_loaded(err)"), **names)
    registry.remove.assert_called_once_with("n", "m")


def test_a_condition_of_ones_own() -> None:
    names = {"grpc": grpc, "Condition": grpcerrors.Condition}
    names["ContractError"] = grpcerrors.ContractError
    with pytest.raises(grpcerrors.ContractError) as raised:
        _run(_block("TOKENIZER_GONE"), **names)
    assert grpcerrors.matches(raised.value, raised.value.condition)
    assert str(raised.value) == "x: tokenizer gone"


def test_what_explain_says() -> None:
    said = grpcerrors.explain(grpcerrors.model_not_loaded("transcriber", model="en-us"))
    assert textwrap.dedent(said) in _README.read_text()
