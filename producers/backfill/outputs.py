"""What a backfill writes: rows with their answers as JSON lines, CSV or Parquet, and the rows that have none.

A file appears under its name when all of it is on the disk: until then whoever reads it finds what was there before.
"""

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from producers.backfill.destinations import Destination, refused, replacing
from producers.backfill.rows import Rejected
from producers.backfill.sources.json_lines import REJECTED_ERROR, REJECTED_RAW, REJECTED_ROW

PREFIX: Final = "tagmill_"
"""Goes before a name of ours that is a column of the source."""

_GROUP_ROWS: Final = 16_384
_GROUP_BYTES: Final = 16 << 20
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet computes instead of showing it."""


def write_output(to: Destination, rows: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], *, scratch: Path) -> int:
    """Write rows in their order: the columns of each, then its answer; how many there were.

    A row needs not have the columns of the one before: all of them are in a CSV or Parquet file, in the order in which
    they were first met. None of ours hides one of the source: it is called ``tagmill_…`` where the name is taken.

    Args:
        to: Where.
        rows: Columns and answer of each, of values that JSON has; they are spooled to the disk.
        scratch: Folder for spool and output until a destination has it that is not on this machine.

    Raises:
        OutputRefused: It cannot be written there.
    """
    with refused(str(to.place)), _Spool.within(to.folder(scratch)) as spool:
        for columns, answer in rows:
            spool.add(columns, answer)
        with to.replacing(scratch) as file:
            _WRITERS[to.file_format](file, spool)
        return spool.rows


def write_rejects(path: Path, rejected: Iterable[Rejected]) -> int:
    """Write rows without an answer as JSON lines that are a source again and give the same rows; how many there were.

    Each has its own columns, or, where they could not be told apart, its line as ``tagmill_raw``; beside them
    ``tagmill_row`` and ``tagmill_error``, which are no columns when they are read again.

    Raises:
        OutputRefused: It cannot be written there.
    """
    count = 0
    with refused(str(path)), replacing(path) as file:
        for count, one in enumerate(rejected, start=1):  # noqa: B007  # the last one is the count
            about = {REJECTED_ROW: one.number, REJECTED_ERROR: one.reason}
            file.write(
                _line({REJECTED_RAW: one.raw or "", **about} if one.columns is None else {**one.columns, **about})
            )
    return count


def write_whole(path: Path, text: str) -> None:
    """Write this text, all of it or none.

    Raises:
        OutputRefused: It cannot be written there.
    """
    with refused(str(path)), replacing(path) as file:
        file.write(text.encode())


@dataclass(slots=True)
class _Spool:
    """Rows on the disk, read a second time once all columns are known, with what kinds of values each holds."""

    _file: IO[bytes]
    rows: int = 0
    theirs: dict[str, set[str]] = field(default_factory=dict)
    ours: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def within(cls, folder: Path) -> Iterator["_Spool"]:
        """An empty one in this folder."""
        with tempfile.TemporaryFile(dir=folder) as file:
            yield cls(file)

    def add(self, columns: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Keep a row."""
        for kinds, values in ((self.theirs, columns), (self.ours, answer)):
            for name, value in values.items():
                kinds.setdefault(name, set()).add(_kind(value))
        self._file.write(json.dumps([columns, answer]).encode() + b"\n")
        self.rows += 1

    def names(self) -> dict[str, str]:
        """Our columns as they are called in the output."""
        taken = set(self.theirs)
        names: dict[str, str] = {}
        for own in self.ours:
            name = own
            while name in taken:
                name = PREFIX + name
            taken.add(name)
            names[own] = name
        return names

    def __iter__(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        self._file.seek(0)
        for line in self._file:
            columns, answer = json.loads(line)
            yield columns, answer


def _write_json_lines(file: IO[bytes], spool: _Spool) -> None:
    names = spool.names()
    for columns, answer in spool:
        file.write(_line({**columns, **{names[own]: value for own, value in answer.items()}}))


def _line(value: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # bytes that were no text: escaped, they survive
        return json.dumps(value).encode() + b"\n"


def _write_csv(file: IO[bytes], spool: _Spool) -> None:
    # With a byte-order mark: without it Excel takes the file for one in the encoding of its country.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="", write_through=True)
    writer = csv.writer(text)
    if spool.rows:
        writer.writerow([*spool.theirs, *spool.names().values()])
    for columns, answer in spool:
        theirs = [_cell(columns.get(name)) for name in spool.theirs]
        writer.writerow([*theirs, *(_harmless(_cell(answer.get(own))) for own in spool.ours)])
    text.detach()


def _cell(value: Any) -> str:
    """The value in a CSV file: text as it is, nothing as an empty cell, anything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _harmless(cell: str) -> str:
    """A cell of ours that no spreadsheet takes for a formula: a label may begin like one."""
    return f"'{cell}" if cell.startswith(_FORMULA) and not _is_number(cell) else cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _write_parquet(file: IO[bytes], spool: _Spool) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    names = spool.names()
    kinds = spool.theirs | {names[own]: found for own, found in spool.ours.items()}
    schema = pa.schema([(name, _arrow_type(pa, found)) for name, found in kinds.items()])
    texts = {one.name for one in schema if one.type == pa.string()}

    def table(group: Sequence[Mapping[str, Any]]) -> Any:
        rows = [{name: _as_text(value) if name in texts else value for name, value in row.items()} for row in group]
        return pa.Table.from_pylist(rows, schema=schema)

    with parquet.ParquetWriter(file, schema) as writer:
        for one in map(table, _groups(spool, names)):
            writer.write_table(one)


def _groups(spool: _Spool, names: Mapping[str, str]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Rows in portions that fit into memory however long their texts are."""
    group: list[Mapping[str, Any]] = []
    size = 0
    for columns, answer in spool:
        group.append({**columns, **{names[own]: value for own, value in answer.items()}})
        size += sum(len(value) for value in columns.values() if isinstance(value, str))
        if len(group) >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _kind(value: Any) -> str:
    """What a column has to be able to hold for this value."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "bool"
        case int():
            return "exact" if abs(value) <= 2**53 else "long" if -(2**63) <= value < 2**63 else "other"
        case float():
            return "float"
        case str():
            return "text"
    return "other"


def _arrow_type(pa: Any, kinds: set[str]) -> Any:
    """The type of a Parquet column that holds all of them without loss; text where there is no other."""
    found = kinds - {"nothing"}
    if found == {"bool"}:
        return pa.bool_()
    if found and found <= {"exact", "long"}:
        return pa.int64()
    if found and found <= {"exact", "float"}:
        return pa.float64()
    return pa.string()


def _as_text(value: Any) -> str | None:
    return None if value is None else _cell(value)


_WRITERS: Final[Mapping[str, Callable[[IO[bytes], _Spool], None]]] = {
    "jsonl": _write_json_lines,
    "csv": _write_csv,
    "parquet": _write_parquet,
}
