"""Parquet: columns in groups of rows, of which those that were read already are passed over unread."""

import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Final

from producers.backfill.rows import Columns, Record
from producers.backfill.sources.roles import Roles
from producers.backfill.sources.values import plain
from tagging.errors import SourceBroken, SourceRefused

_BATCH_ROWS: Final = 1_024
_BUFFER_BYTES: Final = 1 << 20


def read_parquet(
    stream: io.BufferedIOBase,
    *,
    where: str,
    columns: Columns,
    after: int = 0,
    has_rows: Callable[[int], object] = lambda _: None,
) -> Iterator[Record]:
    """The records behind the one of this number; ``has_rows`` is told how many there are in all.

    Raises:
        SourceRefused: pyarrow is missing, it is no Parquet file, or it lacks a column.
        SourceBroken: Its data are damaged.
    """
    try:
        import pyarrow as pa
    except ModuleNotFoundError as e:
        raise SourceRefused(f"{where}: Parquet needs pyarrow; install tagmill[parquet]") from e
    with _rewinding(stream) as file:
        parquet = _opened(pa, file, where=where)
        has_rows(parquet.metadata.num_rows)
        names = parquet.schema_arrow.names
        roles = Roles.among(names, columns, where=where)
        try:
            for number, values in _rows(parquet, after):
                yield roles.record(number, {name: plain(values[name]) for name in names})
        except pa.ArrowException as e:
            raise SourceBroken(f"{where}: reading stopped: {_first_line(e)}") from e


@contextmanager
def _rewinding(stream: io.BufferedIOBase) -> Iterator[IO[bytes] | io.BufferedIOBase]:
    """A stream that is read from its end, as Parquet is; a copy on the disk of one that cannot be, or only slowly."""
    if stream.seekable() and not hasattr(stream, "mtime"):  # gzip rewinds by decompressing it all again
        yield stream
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy, _BUFFER_BYTES)
        copy.seek(0)
        yield copy


def _opened(pa: Any, file: Any, *, where: str) -> Any:
    from pyarrow import parquet

    try:
        # Through a small buffer: else a group of rows would be in memory as a whole.
        return parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except pa.ArrowException as e:
        raise SourceRefused(f"{where}: no Parquet file: {_first_line(e)}") from e


def _rows(parquet: Any, after: int) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for group in range(parquet.num_row_groups):
        size = parquet.metadata.row_group(group).num_rows
        if number + size <= after:
            number += size
            continue
        for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group]):
            fresh = batch.slice(min(batch.num_rows, max(0, after - number)))
            number += batch.num_rows - fresh.num_rows
            for values in fresh.to_pylist():
                number += 1
                yield number, values


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
