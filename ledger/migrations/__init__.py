"""Alembic's scripts. ``ledger.upgrade`` runs them; they are part of the package."""
