from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from grpcerrors_router.cli.app import run
from grpcerrors_router.security import editing
from grpcerrors_router.security.tokens import PREFIX, Role, digest_of
from grpcerrors_router.security.tokens_toml import parse_tokens, read_tokens

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tokens.toml"


def test_new_prints_the_token_once_and_stores_its_hash_only(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["token", "new", "--role", "node", "--name", "gpu-*"]) == 0
    out, err = capsys.readouterr()
    token = out.strip()
    assert token.startswith(PREFIX)
    assert err == "added gpu-* to tokens.toml; this token is not shown again\n"
    text = path.read_text()
    assert token not in text
    assert path.stat().st_mode & 0o777 == 0o600
    (found,) = parse_tokens(text)
    assert found.digest == digest_of(token)
    assert found.roles == {Role.NODE}
    assert found.nodes == ("gpu-*",)
    assert list(path.parent.iterdir()) == [path]


def test_new_takes_limits_and_several_roles(path: Path) -> None:
    arguments = "token new --role caller --role node --name x --models a* --models b --nodes n-*"
    assert run([*arguments.split(), "--expires", "2999-12-31"]) == 0
    (found,) = read_tokens(path)
    assert found.roles == {Role.CALLER, Role.NODE}
    assert (found.models, found.nodes) == (("a*", "b"), ("n-*",))
    assert found.expires == 32503593600.0


def test_new_writes_the_token_to_a_file_that_only_its_owner_can_read(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.token"
    new = ["token", "new", "--role", "caller", "--name", "x", "--out", str(out)]
    assert run(new) == 0
    assert capsys.readouterr().out == ""
    assert out.stat().st_mode & 0o777 == 0o600
    (found,) = read_tokens(path)
    assert found.digest == digest_of(out.read_text().strip())
    assert run([*new[:-1], str(tmp_path / "y.token")]) == 2
    assert "already has [tokens.x]; revoke it first" in capsys.readouterr().err
    assert not (tmp_path / "y.token").exists()
    assert run([*new[:5], "y", "--out", str(out)]) == 2
    assert f"--out {out} exists; name a new file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--role node --name x --models a", "--models is for --role caller"),
        ("--role caller --name x --nodes a", "--nodes is for --role node"),
        ("--role caller --name x --models", "Option '--models' requires an argument"),
        ("--role admin --name x", "'admin' is not one of 'caller', 'node', 'operator'"),
    ],
)
@pytest.mark.usefixtures("path")
def test_new_refuses_what_makes_no_sense(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["token", "new", *arguments.split()]) == 2
    assert message in capsys.readouterr().err


def test_list_shows_what_each_token_may_do(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ("operator --name ops", "caller --name web --models a* --expires 2020-01-01"):
        run(["token", "new", "--role", *arguments.split()])
    run(["token", "new", "--role", "node", "--name", "gpu", "--nodes", "gpu-*"])
    capsys.readouterr()
    assert run(["token", "list"]) == 0
    assert capsys.readouterr().out.split("\n")[:4] == [
        "TOKEN  ROLES     MODELS  NODES  EXPIRES",
        "gpu    node      -       gpu-*  never  ",
        "ops    operator  -       -      never  ",
        "web    caller    a*      -      expired",
    ]
    assert run(["token", "list", "--json", "--tokens", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)[2] == {
        "name": "web",
        "roles": ["caller"],
        "models": ["a*"],
        "nodes": None,
        "expires": "2020-01-01T00:00:00Z",
        "expired": True,
    }


COMMENTED = """\
# Who may call us.

[tokens.web]  # the shop
role = "caller"   # only calls
sha256 = "{a}"

# The old one; to be revoked.
[tokens."old one"]
role = "node"
sha256 = "{b}"

[tokens.ops]
role = "operator"
sha256 = "{c}" # Ann
"""


def test_comments_survive_every_change(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hashes = {name: digest_of(name).hex() for name in "abc"}
    text = COMMENTED.format(**hashes)
    path.write_text(text)
    path.chmod(0o640)
    assert run(["token", "revoke", "old one"]) == 0
    assert run(["token", "new", "--role", "caller", "--name", "new"]) == 0
    assert [token.name for token in read_tokens(path)] == ["web", "ops", "new"]
    changed = path.read_text()
    kept = [line for line in text.split("\n") if "#" in line]
    assert [line for line in changed.split("\n") if "#" in line] == kept
    assert path.stat().st_mode & 0o777 == 0o640
    assert run(["token", "revoke", "wep"]) == 2
    assert 'has no token "wep"; did you mean "web"?' in capsys.readouterr().err
    for name in ("web", "ops", "new"):
        assert run(["token", "revoke", name]) == 0
    assert len(read_tokens(path)) == 0


def test_a_file_with_mistakes_is_not_touched(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text("[tokens.x]\nrole = 'nobody'\n")
    for arguments in ("new --role node --name n", "revoke x"):
        assert run(["token", *arguments.split()]) == 2
        assert "tokens.x.role: unknown role" in capsys.readouterr().err
    assert path.read_text() == "[tokens.x]\nrole = 'nobody'\n"
    path.unlink()
    assert run(["token", "revoke", "x"]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert list(path.parent.iterdir()) == []


def test_tokens_that_are_added_at_once_are_all_there(path: Path) -> None:
    def add(name: str) -> None:
        editing.add(path, name, digest_of(name), roles=[Role.CALLER])

    threads = [threading.Thread(target=add, args=(f"t{each}",)) for each in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(token.name for token in read_tokens(path)) == [f"t{each}" for each in range(8)]


def test_a_lock_that_was_left_behind_is_named(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editing, "LOCK_PATIENCE", 0.0)
    lock = path.with_name("tokens.toml.lock")
    lock.touch()
    assert run(["token", "new", "--role", "caller", "--name", "x"]) == 2
    assert f"if none is, delete {lock}" in capsys.readouterr().err
    assert not path.exists()
    assert lock.exists()


def test_a_link_is_followed_and_stays_a_link(path: Path, tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.touch()
    path.symlink_to(real)
    assert run(["token", "new", "--role", "caller", "--name", "x"]) == 0
    assert path.is_symlink()
    assert [token.name for token in read_tokens(real)] == ["x"]


def test_the_lock_of_the_next_process_is_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = type(path).replace

    def and_lock_again(lock: Path, target: Path) -> Path:
        done = replace(lock, target)
        lock.touch()
        return done

    monkeypatch.setattr(type(path), "replace", and_lock_again)
    assert run(["token", "new", "--role", "caller", "--name", "x"]) == 0
    assert path.with_name("tokens.toml.lock").exists()
