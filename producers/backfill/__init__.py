"""Backfills: every row of a file or table is tagged, while live tickets go first."""
