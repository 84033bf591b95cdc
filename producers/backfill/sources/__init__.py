"""Where the rows of a backfill come from: files, streams, object stores and tables, all read as records."""

from producers.backfill.sources.opening import Source, open_source, without_password

__all__ = ["Source", "open_source", "without_password"]
