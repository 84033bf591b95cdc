"""CSV and TSV: a header, then a record a line, or more lines where a cell in quotes holds line ends."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final, TextIO

from producers.backfill.rows import Columns, Record, Rejected
from producers.backfill.sources.encodings import flaw
from producers.backfill.sources.lines import Line, LongLine, bounded_lines, kept
from producers.backfill.sources.roles import Roles
from tagging.errors import SourceRefused

TAB: Final = "\t"


def read_delimited(
    text: TextIO, *, where: str, columns: Columns, delimiter: str | None, after: int = 0
) -> Iterator[Record]:
    """The records behind the one of this number, counted without the header and empty lines.

    Args:
        text: Opened with ``newline=""``.
        delimiter: ``None`` is told from the header: a comma, else a semicolon, else a tab.

    Raises:
        SourceRefused: There is no header, or it lacks a column.
    """
    feed = _Feed(bounded_lines(text))
    delimiter = delimiter or _delimiter_of(feed)
    records = _records(feed, delimiter)
    header = _header(next(records, None), where=where)
    roles = Roles.among(header, columns, where=where)
    for number, record in zip(count(1), records, strict=False):
        if number > after:
            yield _read(number, record, header=header, roles=roles, encoding=text.encoding)


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A record's cells, or what is wrong with its lines."""

    raw: str
    cells: list[str]
    wrong: str | None = None


class _Feed:
    """Lines for the parser, which can be given back: those of a record that turned out to be none."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._returned: list[Line] = []
        self._taken: list[Line] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.pop() if self._returned else next(self._lines)
        self._taken.append(line)
        if isinstance(line, LongLine):
            raise csv.Error(line.reason)
        return line

    def begin(self) -> None:
        """What is taken from here on belongs to the next record."""
        self._taken.clear()

    def give_back(self, *, but: int) -> None:
        """Take these lines of the record again, except so many at its start."""
        self._returned.extend(reversed(self._taken[but:]))
        del self._taken[but:]

    def raw(self) -> str:
        """The record's lines as they stand in the file, without the last line end."""
        # A line that is too long ends a record, so it is the last one.
        return "".join(line for line in self._taken[:-1] if isinstance(line, str)) + kept(self._taken[-1])


def _records(feed: _Feed, delimiter: str) -> Iterator[_Parsed]:
    parser = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.begin()
        try:
            cells = next(parser)
        except StopIteration:
            return
        except csv.Error as e:
            # A quote that is never closed would swallow the rows behind it. They are read again by themselves: a
            # record that cannot be read costs its first line only.
            feed.give_back(but=1)
            yield _Parsed(raw=feed.raw(), cells=[], wrong=str(e))
        else:
            if cells:
                yield _Parsed(raw=feed.raw(), cells=cells)


def _delimiter_of(feed: _Feed) -> str:
    feed.begin()
    try:
        header = next(feed, "")
    except csv.Error:
        header = ""
    feed.give_back(but=0)
    return next((delimiter for delimiter in (",", ";", TAB) if delimiter in header), ",")


def _header(parsed: _Parsed | None, *, where: str) -> list[str]:
    if parsed is None:
        raise SourceRefused(f"{where}: empty; expected a first line with the names of the columns")
    if parsed.wrong:
        raise SourceRefused(f"{where}: the first line, with the names of the columns, cannot be read: {parsed.wrong}")
    return [name.strip() or f"column_{n}" for n, name in enumerate(parsed.cells, start=1)]


def _read(number: int, parsed: _Parsed, *, header: list[str], roles: Roles, encoding: str) -> Record:
    if wrong := parsed.wrong or flaw(parsed.raw, encoding):
        return Rejected(number=number, reason=f"expected delimited text, got {_clear(wrong)}", raw=parsed.raw)
    if len(parsed.cells) != len(header):
        reason = f"expected {len(header)} cells, got {len(parsed.cells)}"
        return Rejected(number=number, reason=reason, raw=parsed.raw)
    return roles.record(number, dict(zip(header, parsed.cells, strict=True)))


def _clear(wrong: str) -> str:
    """Python's words for what is wrong with quotes, in ours."""
    if wrong == "unexpected end of data":
        return "a quote that is never closed"
    if wrong.endswith("expected after '\"'"):
        return "a quote within a cell that should be doubled"
    if wrong.startswith("field larger than field limit"):
        return f"a cell of more than {csv.field_size_limit():,} characters"
    return wrong
