"""Brings a database to the schema of this version."""

from pathlib import Path
from threading import Lock
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from ledger.database import Database, open_database
from tagging.errors import SettingsError

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 7_382_214_916  # any number of our own: who holds it on PostgreSQL may migrate
_LOCK_TIMEOUT_S: Final = 30
_alembic = Lock()  # its environment is one for the whole process


def upgrade(url: str) -> None:
    """Migrate the database at this URL to the newest schema; nothing happens where it is there already.

    Several processes may do so at once: one migrates, the others wait for it and find nothing to do.

    Raises:
        SettingsError: The URL is wrong, or a newer version of this program migrated the database.
        StoreUnavailable: The database failed; its schema is as it was.
    """
    database = open_database(url)
    try:
        with _alembic, database.writing() as connection:
            _lock(connection)
            _migrate(database, connection)
    finally:
        database.close()


def _lock(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        # Until the end of the transaction. The time limit also keeps a migration that waits for a table from
        # holding up everyone who comes after it.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


def _migrate(database: Database, connection: sa.Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    _refuse_newer(database, connection, ScriptDirectory.from_config(config))
    command.upgrade(config, "head")


def _refuse_newer(database: Database, connection: sa.Connection, scripts: ScriptDirectory) -> None:
    for revision in MigrationContext.configure(connection).get_current_heads():
        try:
            scripts.get_revision(revision)
        except CommandError as e:
            raise SettingsError(
                [f"{database}: its schema {revision} is newer than this version knows; start the newer version"]
            ) from e
