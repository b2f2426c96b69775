"""The database of the registry: short transactions, run in threads."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from grpcerrors_router.errors import RegistryOutdated, RegistryUnavailable
from grpcerrors_router.registry.schema import changes, revision

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpcerrors_router.clock import Clock

T = TypeVar("T")

NOTIFY_CHANNEL = "grpcerrors_router"
VERSION_TABLE = "router_version"
_VERSION = sa.table(VERSION_TABLE)
_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x67727063
_MIGRATION_PATIENCE = 30.0
_CONFLICT_TRIES = 5
_CONFLICTS = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected


class Store:
    """Runs transactions on SQLite or PostgreSQL.

    Args:
        url: `sqlite:///path.db` or `postgresql://user@host/db`.
        clock: the time of the transactions, for tests. The default is the database server's clock
            on PostgreSQL, which all routers share, and the machine's clock on SQLite.
        timeout: seconds that a transaction may take.
        threads: runs the transactions, for tests.

    Raises:
        ValueError: `url` is for another kind of database.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        timeout: float = 5.0,
        threads: Executor | None = None,
    ) -> None:
        parsed = make_url(url)
        kind = parsed.get_backend_name()
        if kind not in {"sqlite", "postgresql"}:
            shown = parsed.render_as_string(hide_password=True)
            msg = f"registry {shown}: use sqlite:///file.db or postgresql://user@host/database"
            raise ValueError(msg)
        self.is_postgres = kind == "postgresql"
        self.url = parsed.set(drivername="postgresql+psycopg") if self.is_postgres else parsed
        self._clock = clock
        self._timeout = timeout
        self.engine = self._make_engine()
        # SQLite has one writer; with one thread, writers do not contend for its lock.
        self._threads = threads or ThreadPoolExecutor(4 if self.is_postgres else 1, "registry")

    def _make_engine(self) -> Engine:
        if self.is_postgres:
            return sa.create_engine(
                self.url,
                pool_pre_ping=True,
                pool_size=4,
                # In a database of encoding SQL_ASCII, the driver returns bytes by default.
                connect_args={
                    "connect_timeout": 3,
                    "tcp_user_timeout": 5000,
                    "client_encoding": "utf8",
                },
            )
        engine = sa.create_engine(self.url, connect_args={"timeout": self._timeout})
        sa.event.listen(engine, "connect", _configure_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    async def migrate(self) -> None:
        """Create or upgrade the schema. Several routers may do this at the same time."""
        await self._in_thread(self._migrate)

    def _migrate(self) -> None:
        # The import takes half the run time of `status`, and only `serve` needs it.
        from alembic import command  # noqa: PLC0415
        from alembic.config import Config  # noqa: PLC0415

        logging.getLogger("alembic").setLevel(logging.WARNING)
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.set_main_option("path_separator", "os")
        until = time.monotonic() + _MIGRATION_PATIENCE
        while True:
            try:
                with self.engine.begin() as conn:
                    if self.is_postgres:
                        conn.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
                    config.attributes["connection"] = conn
                    command.upgrade(config, "head")
            except OperationalError:
                # On SQLite, another router may be migrating the same file: retry after it.
                if self.is_postgres or time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                return

    async def check_schema(self) -> None:
        """Check the schema. Raises RegistryOutdated if it is that of another version."""

        def check() -> str | None:
            with self.engine.connect() as conn:
                if not sa.inspect(conn).has_table(VERSION_TABLE):
                    return None
                found = conn.scalar(sa.select(sa.column("version_num")).select_from(_VERSION))
                return None if found is None else str(found)

        found, wanted = await self._in_thread(check), _newest_migration()
        if found != wanted:
            raise RegistryOutdated(found, wanted)

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """Run one write transaction, commit it, and return its result.

        Raises:
            RegistryUnavailable: the database cannot be reached, or does not answer in time.
        """
        return await self._run(transaction, begin="BEGIN IMMEDIATE")

    async def read(self, transaction: Callable[[Connection], T]) -> T:
        """Run one read transaction on a consistent snapshot. Raises RegistryUnavailable."""
        if self.is_postgres:
            return await self._run(transaction, isolation_level="REPEATABLE READ")
        return await self._run(transaction, begin="BEGIN")

    async def _run(self, transaction: Callable[[Connection], T], **options: str) -> T:
        def once() -> T:
            with self.engine.connect().execution_options(**options) as conn, conn.begin():
                return transaction(conn)

        def work() -> T:
            for _ in range(_CONFLICT_TRIES - 1):
                try:
                    return once()
                except OperationalError as error:
                    # The database rolled this transaction back in favour of another one.
                    if getattr(error.orig, "sqlstate", None) not in _CONFLICTS:
                        raise
            return once()

        try:
            # Not wait_for: up to Python 3.11 it can lose a cancellation.
            async with asyncio.timeout(self._timeout):
                return await self._in_thread(work)
        except TimeoutError:
            msg = f"no answer within {self._timeout:g} s"
            raise RegistryUnavailable(msg) from None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            raise RegistryUnavailable(str(getattr(error, "orig", error)).strip()) from error

    def now(self, conn: Connection) -> float:
        """Return Unix seconds, by the clock that all routers of this registry share."""
        if self._clock is not None:
            return self._clock.time()
        if self.is_postgres:
            return float(
                conn.scalar(sa.text("select extract(epoch from clock_timestamp())")) or 0.0
            )
        return time.time()

    def bump(self, conn: Connection, node: str, by: int = 1) -> int:
        """Take the next `by` revisions for a change of `node`, and return the last one.

        This serializes the writers until the transaction ends.
        """
        number = conn.execute(
            sa.update(revision).values(number=revision.c.number + by).returning(revision.c.number)
        ).scalar_one()
        conn.execute(sa.insert(changes).values(revision=number, node=node))
        if self.is_postgres:
            conn.execute(sa.select(sa.func.pg_notify(NOTIFY_CHANNEL, str(number))))
        return int(number)

    def close(self) -> None:
        """Close the connections and threads, after the transactions that are running."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.engine.dispose()


def _newest_migration() -> str:
    """Return the version of the newest migration, from the names of the files."""
    scripts = (_MIGRATIONS / "versions").glob("[0-9]*_*.py")
    return max(script.name.partition("_")[0] for script in scripts)


def _begin_sqlite(conn: Connection) -> None:
    conn.exec_driver_sql(conn.get_execution_options().get("begin", "BEGIN IMMEDIATE"))


def _configure_sqlite(connection: object, _record: object) -> None:
    # Turn off the driver's implicit transactions: SQLAlchemy's "begin" event sends BEGIN.
    connection.isolation_level = None  # type: ignore[attr-defined]
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
