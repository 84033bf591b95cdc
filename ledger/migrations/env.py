"""Alembic loads this module to run migrations, inside the transaction that ``ledger.upgrade`` opened."""

from alembic import context

from ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
