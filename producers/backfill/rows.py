"""What a source hands over, one record at a time: a row that can be asked about, or why one cannot."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tagging.names import Kind
from tagging.text import clean


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A record with a text."""

    number: int
    """Grows along the source, and resuming skips by it: the position from 1; in a table its key, if that is whole."""
    columns: Mapping[str, Any]
    """The original columns, in order, kept for the output."""
    text: str
    ref: str | None = None
    revision: int = 0
    kind: Kind = "ticket"
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A record that cannot be asked about."""

    number: int
    reason: str
    """Says what was expected and what came, without quoting the record."""
    columns: Mapping[str, Any] | None = None
    """The original columns, where they could be told apart."""
    raw: str | None = None
    """The record as it stands in the source, where they could not; bytes that are no text are lone surrogates."""


Record = Row | Rejected


def checked(record: Record, *, text_chars: int) -> Record:
    """The row with its text as a worker will read it, or why it cannot be asked about.

    Args:
        record: Of a source.
        text_chars: Of a text at most.
    """
    if isinstance(record, Rejected):
        return record
    text = clean(record.text)
    if text and len(text) <= text_chars:
        return replace(record, text=text)
    reason = f"text: {len(text):,} characters, limit is {text_chars:,}" if text else "text: empty after cleaning"
    return Rejected(number=record.number, reason=reason, columns=record.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which column holds what: ``None`` is guessed from usual names, and ``""`` is in no column."""

    text: str | None = None
    ref: str | None = None
    revision: str | None = None
    kind: str | None = None
