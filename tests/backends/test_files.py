"""The files that callers may name: only regular ones, only inside the given folders."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grpcerrors_backends.errors import BadInput, LoadError, NotFound
from grpcerrors_backends.files import Files, NoFolderError, Secrets

OUTSIDE = "no file {path!r} in the folders that this backend may use"


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A folder with a file, a folder, a pipe, and links to a file and a folder outside."""
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "inside"
    (folder / "deep").mkdir(parents=True)
    (folder / "file").write_text("content")
    (folder / "deep" / "file").write_text("deep content")
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to(tmp_path)
    (folder / "dangling").symlink_to(tmp_path / "new")
    return folder


def text(files: Files, path: object) -> str:
    with files.open(str(path)) as file:
        return file.read().decode()


def test_files_inside_are_read_and_written(inside: Path) -> None:
    files = Files([inside])
    assert text(files, inside / "file") == text(files, "file") == "content"
    assert text(files, "deep/file") == text(files, inside / "deep" / "file") == "deep content"
    assert files.path("deep/file") == inside / "deep" / "file"
    files.write("deep/new", b"first")
    files.write("deep/new", b"second")
    assert text(files, "deep/new") == "second"
    assert stat.S_IMODE((inside / "deep" / "new").stat().st_mode) == 0o600
    for part in (b"a", b"b"):
        appended = files.append("log")
        os.write(appended, part)
        os.close(appended)
    assert text(files, "log") == "ab"
    assert stat.S_IMODE((inside / "log").stat().st_mode) == 0o600
    assert sorted(path.name for path in (inside / "deep").iterdir()) == ["file", "new"]


def test_a_folder_may_be_named_by_a_link(inside: Path, tmp_path: Path) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(inside)
    files = Files([alias])
    assert text(files, alias / "file") == text(files, inside / "file") == "content"


def test_each_of_several_folders_counts(inside: Path, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "other").write_text("other")
    files = Files([inside, tmp_path / "second"])
    assert text(files, tmp_path / "second" / "other") == "other"
    with pytest.raises(NotFound):
        files.open("other")  # relative to the first


@pytest.mark.parametrize(
    "path",
    [
        *(
            "../secret",
            "deep/../../secret",
            "/etc/hostname",
            "/no/such/file",
            "missing",
            "missing/x",
        ),
        *("link", "up/secret", "dangling", "pipe", "deep", "", ".", "/", "..", "file/x"),
        *("x\0y", "x" * 300, "/dev/zero", "/proc/self/environ"),
    ],
)
def test_nothing_else_is_used_and_the_answer_is_the_same(inside: Path, path: str) -> None:
    files = Files([inside])
    before = sorted(inside.parent.rglob("*"))
    for use in (files.open, files.path):
        with pytest.raises(NotFound) as caught:
            use(path)
        shown = path if len(path) < 200 else f"{path[:200]}..."
        assert str(caught.value) == OUTSIDE.format(path=shown)
    if path != "missing":
        with pytest.raises(NotFound):
            files.append(path)
        with pytest.raises(NotFound):
            files.write(path, b"overwritten")
    assert sorted(inside.parent.rglob("*")) == before
    assert (inside.parent / "secret").read_text() == "secret"


def test_absolute_paths_are_bound_by_the_same_rules(inside: Path) -> None:
    files = Files([inside])
    for path in ("../secret", "link", "up/secret", "dangling", "pipe"):
        with pytest.raises(NotFound):
            files.open(f"{inside}/{path}")
        with pytest.raises(NotFound):
            files.write(f"{inside}/{path}", b"overwritten")
    with pytest.raises(NotFound):
        files.open(f"{inside}-sibling/file")
    assert (inside.parent / "secret").read_text() == "secret"


def test_without_a_folder_there_are_no_files() -> None:
    with pytest.raises(NotFound, match="start it with --files"):
        Files().open(__file__)
    with pytest.raises(NoFolderError, match=r"--files /no/such: there is no such folder; create"):
        Files([Path("/no/such")])
    with pytest.raises(NoFolderError, match="--secrets"):
        Secrets(Path(__file__))


def test_a_disk_that_is_full_is_reported_and_leaves_nothing(inside: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(BadInput, match="cannot write 'new': No space left on device"):
            Files([inside]).write("new", b"x")
    assert not (inside / "new").exists()
    assert not list(inside.glob(".*"))


@given(st.text(alphabet="./ab\0~%", max_size=20))
@example("//etc/hostname")
def test_no_path_leads_out(path: str) -> None:
    here = Path(__file__).parent
    try:
        found = Files([here]).path(path)
    except NotFound:
        return
    assert found.resolve().is_relative_to(here.resolve())


def test_secrets_are_only_those_that_the_operator_has_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("sk-1")
    monkeypatch.setenv("LISTED", "sk-2")
    monkeypatch.setenv("UNLISTED", "sk-3")
    secrets = Secrets(tmp_path, ["LISTED", "UNSET"])
    assert secrets.file("api_key_file", "key") == "sk-1"
    assert secrets.variable("api_key_env", "LISTED") == "sk-2"
    answers = set()
    for name in ("UNLISTED", "UNSET", "PATH", "", "NO_SUCH"):
        with pytest.raises(LoadError) as caught:
            secrets.variable("api_key_env", name)
        answers.add(str(caught.value))
    for path in ("/etc/hostname", "../key", "missing", str(tmp_path)):
        with pytest.raises(LoadError) as caught:
            secrets.file("api_key_file", path)
        answers.add(str(caught.value))
    assert len(answers) == 2
    assert not any(str(tmp_path) in answer for answer in answers)
