"""The files and secrets that requests and load options may name.

Callers choose these names, so a name never leads out of the folders that the operator has given
to the host: not by `..`, not by a symbolic link. Only regular files are opened, so that a pipe or a
device cannot hold a thread. Whatever keeps a file from being used, the answer is the same, so that
nobody learns which files exist elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, BinaryIO

import structlog

from grpcerrors_backends.errors import BadInput, LoadError, NotFound

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

log = structlog.get_logger()

_USUAL = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_SHOWN = 200  # characters of a path in an error
_SECRET_SIZE = 64 * 1024  # bytes
# Without O_NONBLOCK, opening a pipe waits for its other end.
_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FOLDER = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY


class NoFolderError(Exception):
    """A folder that the host was given does not exist. The text names the option."""


class Files:
    """The folders in which requests and load options may name files; no folder, no files.

    A path is absolute and inside one of the folders, or relative to the first. No part of it below
    the folder may be a symbolic link or `..`.

    Raises NoFolderError, which names `option`, if a folder does not exist.
    """

    def __init__(self, folders: Sequence[Path] = (), option: str = "--files") -> None:
        for folder in folders:
            if not folder.is_dir():
                raise NoFolderError(f"{option} {folder}: there is no such folder; create it")
        # A caller may use the name that the operator gave, or the one without symbolic links.
        self._folders = [(folder.absolute(), folder.resolve()) for folder in folders]

    def open(self, path: str) -> BinaryIO:
        """Open a regular file for reading. Raises NotFound."""
        with self._refusing(path) as (folder, name):
            return os.fdopen(_open(folder, name, os.O_RDONLY), "rb")

    def path(self, path: str) -> Path:
        """Return the checked path of a regular file, for a library that opens it itself.

        Raises NotFound.
        """
        with self._refusing(path) as (folder, name):
            os.close(_open(folder, name, os.O_RDONLY))
            return folder / name

    def append(self, path: str) -> int:
        """Open a regular file for appending; return its descriptor. Creates it. Raises NotFound."""
        with self._refusing(path) as (folder, name):
            return _open(folder, name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, path: str, data: bytes) -> None:
        """Write a file, readable by this user only. It appears when it is complete.

        It replaces a regular file of that name. Raises NotFound if that is not possible, BadInput
        if the data cannot be written.
        """
        with self._refusing(path) as (folder, name), _parent(folder, name) as parent:
            with contextlib.suppress(FileNotFoundError):
                _check_regular(os.stat(name.name, dir_fd=parent, follow_symlinks=False))
            try:
                _write(parent, name.name, data)
            except OSError as error:
                raise BadInput(f"cannot write {path!r}: {error.strerror}") from error

    @contextlib.contextmanager
    def _refusing(self, path: str) -> Iterator[tuple[Path, PurePath]]:
        """Yield the folder of a path and the path below it. Turn an OSError into NotFound."""
        shown = path if len(path) <= _SHOWN else f"{path[:_SHOWN]}..."
        try:
            yield self._split(path)
        except (OSError, ValueError) as error:
            if getattr(error, "errno", errno.ENOENT) not in _USUAL:
                log.warning("cannot use a file", path=shown, why=str(error))
            text = f"no file {shown!r} in the folders that this backend may use"
            if not self._folders:
                text = f"no file {shown!r}: this backend may use no files; start it with --files"
            raise NotFound(text) from None

    def _split(self, path: str) -> tuple[Path, PurePath]:
        name = PurePath(path)
        if ".." in name.parts or not name.name:
            raise ValueError("not the path of a file without ..")
        for folder, real in self._folders:
            if not name.is_absolute():
                return real, name
            for each in (folder, real):
                if name != each and name.is_relative_to(each):
                    return real, name.relative_to(each)
        raise ValueError("not in a folder of --files")


class Secrets:
    """The secrets that load options may name: files in `folder`, and environment `variables`.

    Raises NoFolderError if the folder does not exist.
    """

    def __init__(self, folder: Path | None = None, variables: Collection[str] = ()) -> None:
        self._files = Files([folder] if folder else [], "--secrets")
        self._variables = frozenset(variables)

    def file(self, option: str, path: str) -> str:
        """Return the text of the file that a load option names. Raises LoadError."""
        try:
            with self._files.open(path) as file:
                return file.read(_SECRET_SIZE).decode()
        except (NotFound, OSError, ValueError):
            text = f"{option}: no such key in the folder that the host was given with --secrets"
            raise LoadError(text) from None

    def variable(self, option: str, name: str) -> str:
        """Return the environment variable that a load option names. Raises LoadError."""
        found = os.environ.get(name, "") if name in self._variables else ""
        if not found:
            text = f"{option}: no such key among the variables given to the host with --secret-env"
            raise LoadError(text)
        return found


@contextlib.contextmanager
def _parent(folder: Path, name: PurePath) -> Iterator[int]:
    """Open the folder that a file is in, one part of its path after the other."""
    current = os.open(folder, _FOLDER)
    try:
        for part in name.parts[:-1]:
            below = os.open(part, _FOLDER, dir_fd=current)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def _open(folder: Path, name: PurePath, flags: int) -> int:
    with _parent(folder, name) as parent:
        file = os.open(name.name, flags | _SAFE, 0o600, dir_fd=parent)
    try:
        _check_regular(os.fstat(file))
    except OSError:
        os.close(file)
        raise
    return file


def _check_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError("not a regular file")


def _write(parent: int, name: str, data: bytes) -> None:
    new = f".{secrets.token_hex(8)}.new"
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, 0o600, dir_fd=parent)
    try:
        with os.fdopen(file, "wb") as opened:
            opened.write(data)
        os.rename(new, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        os.unlink(new, dir_fd=parent)
        raise
