"""Nothing that a node or a caller says reaches a terminal with its control characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from tests.router.support.cli import command
from tests.router.support.rawnode import SERVICE, Script, stack

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
EVIL = "\x1b]0;owned\x07\x1b[31mred\x1b[2J\r\x08\u202e\x9b31m"
FORBIDDEN = ("\x1b", "\x07", "\r", "\x08", "\u202e", "\x9b")


def is_clean(text: str) -> bool:
    return not any(each in text for each in FORBIDDEN)


async def test_no_command_prints_control_characters_of_a_node(tmp_path: Path) -> None:
    async with stack(tmp_path) as served:
        served.node.load_error = f"cannot load {EVIL}"
        call = served.through.unary_unary(f"{SERVICE}Predict")
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"", metadata=[("x-model-id", "m")], timeout=60)
        served.node.load_error = ""
        code = await call(b"", metadata=[("x-model-id", "alias")], timeout=60).code()
        assert code is grpc.StatusCode.OK
        served.node.script = Script(
            code=grpc.StatusCode.FAILED_PRECONDITION, details=f"raw: model not loaded {EVIL}"
        )
        await call(b"", metadata=[("x-model-id", "alias")], timeout=60).code()
        said = ""
        for arguments in (
            ("status",),
            ("heals",),
            ("models",),
            ("history", "m"),
            ("history", "alias"),
            ("load", "m"),
            ("load", EVIL),
            ("unload", EVIL),
            ("drain", EVIL),
        ):
            _, out, err = await command(served, *arguments, module=False)
            assert is_clean(out), (arguments, out)
            assert is_clean(err), (arguments, err)
            said += out + err
        assert "cannot load" in said
        assert "owned" in said
