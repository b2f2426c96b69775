"""Which addresses need protection."""

from __future__ import annotations

from typing import Any

import pytest

from grpcerrors_protocol.exposure import ExposedError, Protection, is_local


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:50050", True),
        ("127.8.8.8:0", True),
        ("[::1]:0", True),
        ("::1:0", True),
        ("localhost:0", True),
        ("unix:/run/router", True),
        ("unix-abstract:router", True),
        ("no-such-host.invalid:1", True),  # it cannot be listened on
        ("0.0.0.0:0", False),
        ("[::]:0", False),
        ("10.0.0.1:50050", False),
    ],
)
def test_only_loopback_and_sockets_in_files_are_local(address: str, local: bool) -> None:
    assert is_local(address) is local


def warnings(address: str, **protection: Any) -> list[str]:
    said: list[str] = []
    Protection(**protection).check("--listen", address, said.append)
    return said


def test_what_other_machines_reach_needs_protection() -> None:
    assert warnings("127.0.0.1:1") == []
    with pytest.raises(ExposedError) as caught:
        warnings("0.0.0.0:1")
    for option in ("--listen 0.0.0.0:1", "--tls-cert", "--tokens", "127.0.0.1", "--insecure"):
        assert option in str(caught.value)


@pytest.mark.parametrize(
    ("protection", "said"),
    [
        ({"insecure": True}, "is not protected"),
        ({"tokens": True}, "is not encrypted"),
        ({"tls": True}, "serves every caller: give --tokens or --tls-client-ca"),
        ({"tls": True, "by": ""}, "serves every caller: give --tls-client-ca"),
        ({"tls": True, "tokens": True}, ""),
        ({"tls": True, "clients": True}, ""),
    ],
)
def test_half_a_protection_is_told(protection: dict[str, bool], said: str) -> None:
    found = warnings("0.0.0.0:1", **protection)
    assert [said in each for each in found] == [True] * bool(said)
