"""A source from what was typed: a path, ``-``, the URL of an object store or of a database."""

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import BinaryIO, Final, Protocol, cast

from producers.backfill.rows import Columns, Record
from producers.backfill.sources.delimited import TAB, read_delimited
from producers.backfill.sources.encodings import UNDECODABLE, checked_encoding, detect
from producers.backfill.sources.extent import Extent, Reading
from producers.backfill.sources.fingerprint import fingerprint_of
from producers.backfill.sources.json_lines import read_json_lines
from producers.backfill.sources.parquet import read_parquet
from producers.backfill.sources.places import Content, Place
from producers.backfill.sources.tables import is_database, open_table
from tagging.errors import SourceBroken, SourceRefused

FORMATS: Final = ("csv", "tsv", "jsonl", "parquet")
_FORMAT_OF_SUFFIX: Final = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_PARQUET_MAGIC: Final = b"PAR1"
_PASSWORD: Final = re.compile(r"(?<=://)([^/@:]*):[^@]*@")


class Source(Protocol):
    """Where records come from."""

    @property
    def name(self) -> str:
        """As people know it; without passwords."""
        ...

    @property
    def fingerprint(self) -> str:
        """Stands for where the records come from and how they are read, not for what they hold."""
        ...

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """The records behind the one of this number, in order, in bounded memory.

        Raises:
            SourceRefused: It cannot be read as it was described.
            SourceBroken: Reading stopped midway.
        """
        ...

    def extent(self) -> Extent:
        """How much there is of it, and how much of that was read; cheap to ask."""
        ...


def open_source(
    spec: str,
    *,
    columns: Columns = Columns(),  # noqa: B008  # frozen
    file_format: str | None = None,
    encoding: str | None = None,
    table: str | None = None,
    query: str | None = None,
    key: str | None = None,
) -> Source:
    """The source that this names, of which the first record has been read, unless it is standard input.

    Args:
        spec: A path, ``-`` for standard input, or a URL.
        columns: Which column is what.
        file_format: One of ``FORMATS``; ``None`` is told from the name, then from the content.
        encoding: ``None`` is told from the first MiB.
        table: Of a database, with its schema where that is not the usual one: ``support.tickets``.
        query: Of a database, in place of a table.
        key: Column that orders table or query, and that each row has to itself; ``None`` is the table's primary key.

    Raises:
        SourceRefused: It cannot be read as it was described.
    """
    if is_database(spec):
        if file_format or encoding:
            raise SourceRefused("a database: --format and --encoding are for files")
        return open_table(spec, columns=columns, table=table, query=query, key=key)
    if table or query or key:
        raise SourceRefused(f"{Place(spec)}: --table, --query and --key are for databases")
    if file_format is not None and file_format not in FORMATS:
        raise SourceRefused(f"no format {file_format!r}; known are {', '.join(FORMATS)}")
    source = FileSource(
        place=Place(spec),
        columns=columns,
        file_format=file_format,
        encoding=encoding and checked_encoding(encoding),
    )
    if source.place.can_be_read_again:
        _try(source)
    return source


def without_password(spec: str) -> str:
    """The same place to somebody who has the password from elsewhere, such as ``~/.pgpass``: fit to be kept."""
    return _PASSWORD.sub(r"\1@", spec)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """A file, wherever it lies."""

    place: Place
    columns: Columns
    file_format: str | None
    encoding: str | None
    reading: Reading = field(default_factory=Reading, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The path or URL."""
        return str(self.place)

    @property
    def fingerprint(self) -> str:
        """Stands for the place and how it is read."""
        return fingerprint_of(self.place.identity, self.file_format, self.encoding, asdict(self.columns))

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """The records behind the one of this number, in order, in bounded memory.

        Raises:
            SourceRefused: It cannot be read as it was described.
            SourceBroken: The file is cut off or the connection to it is lost.
        """
        with self.place.opened() as content:
            try:
                yield from self._read(content, after)
                self.reading.end()
            except (OSError, EOFError, zlib.error) as e:
                raise SourceBroken(f"{self.name}: reading stopped: {type(e).__name__}: {e}") from e

    def extent(self) -> Extent:
        """How much there is of it, and how much of that was read."""
        return self.reading.extent()

    def _read(self, content: Content, after: int) -> Iterator[Record]:
        found = self.file_format or _format_of(self.place, content.head)
        if found == "parquet":
            yield from read_parquet(
                content.stream, where=self.name, columns=self.columns, after=after, has_rows=self.reading.has
            )
            return
        self.reading.follow(content.raw)
        encoding = self.encoding or detect(content.head, where=self.name)
        with io.TextIOWrapper(
            cast("BinaryIO", content.stream), encoding=encoding, errors=UNDECODABLE, newline=""
        ) as text:
            if found == "jsonl":
                yield from read_json_lines(text, where=self.name, columns=self.columns, after=after)
            else:
                delimiter = TAB if found == "tsv" else None
                yield from read_delimited(text, where=self.name, columns=self.columns, delimiter=delimiter, after=after)


def _try(source: Source) -> None:
    """Read one record, so that what is wrong with the command is said before anything else is done."""
    with closing(source.records()) as records:  # type: ignore[type-var]  # a generator, which can be closed
        next(records, None)


def _format_of(place: Place, head: bytes) -> str:
    suffixes = [suffix.lower() for suffix in PurePath(place.spec).suffixes if suffix.lower() != ".gz"]
    if suffixes and suffixes[-1] in _FORMAT_OF_SUFFIX:
        return _FORMAT_OF_SUFFIX[suffixes[-1]]
    if head.startswith(_PARQUET_MAGIC):
        return "parquet"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return "jsonl"
    raise SourceRefused(f"{place}: cannot tell its format; name it with --format {', '.join(FORMATS)}")
