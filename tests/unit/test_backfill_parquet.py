"""A Parquet file is a source of backfills."""

import gzip
import io
import sys
import tracemalloc
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from producers.backfill.rows import Columns, Rejected
from producers.backfill.sources import open_source
from producers.backfill.sources.parquet import read_parquet
from tagging.errors import SourceBroken, SourceRefused

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def path(tmp_path):
    """Ten rows in groups of three."""
    path = tmp_path / "t.parquet"
    table = pa.table({"id": range(1, 11), "text": [f"第{n}行" for n in range(1, 11)]})
    pq.write_table(table, path, row_group_size=3)
    return path


def test_a_row_has_its_columns_in_order_as_json_has_them(tmp_path):
    table = pa.table(
        {
            "at": [datetime(2026, 11, 25, 14, 30, tzinfo=UTC)],
            "day": [date(2026, 11, 25)],
            "price": [Decimal("1.10")],
            "share": [float("nan")],
            "text": [b"\xe4\xbd\xa0\xe5\xa5\xbd"],
            "blob": [b"\xff"],
            "tags": [["a", None]],
            "more": [{"x": 1}],
            "revision": [3.0],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    [row] = open_source(str(tmp_path / "t.parquet")).records()
    assert (row.text, row.revision) == ("你好", 3)
    assert list(row.columns.items()) == [
        ("at", "2026-11-25T14:30:00+00:00"),
        ("day", "2026-11-25"),
        ("price", "1.10"),
        ("share", None),
        ("text", "你好"),
        ("blob", "/w=="),
        ("tags", ["a", None]),
        ("more", {"x": 1}),
        ("revision", 3.0),
    ]


def test_reading_on_gives_what_reading_whole_gives(path):
    source = open_source(str(path))
    whole = [*source.records()]
    assert [row.number for row in whole] == list(range(1, 11))
    for after in range(12):
        assert [*source.records(after=after)] == whole[after:]


def test_reading_on_passes_over_the_groups_that_were_read(path):
    class Counted(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.taken += len(data)
            return data

    def taken(after: int) -> int:
        stream = Counted(path.read_bytes())
        list(read_parquet(stream, where="t", columns=Columns(), after=after))
        return stream.taken

    assert taken(0) > taken(3) > taken(9)


def test_gzipped_from_a_pipe_or_a_store_it_is_the_same(path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    whole = [*open_source(str(path)).records()]
    zipped = path.with_suffix(".parquet.gz")
    zipped.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    assert [*open_source(str(zipped)).records()] == whole
    with fsspec.open("memory://bucket/t.parquet", "wb") as file:
        file.write(path.read_bytes())
    assert [*open_source("memory://bucket/t.parquet").records()] == whole
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Pipe(path.read_bytes()))))
    assert [*open_source("-").records()] == whole


class Pipe(io.RawIOBase):
    """Bytes that can be read once."""

    def __init__(self, data: bytes) -> None:
        self._rest = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._rest.readinto(buffer)


def test_a_row_without_a_text_is_rejected_with_its_columns(tmp_path):
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "t.parquet")
    _, refused = open_source(str(tmp_path / "t.parquet")).records()
    assert refused == Rejected(number=2, reason="text: expected a text, got nothing", columns={"text": None})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (pa.table({"a": [1], "b": [2]}), "no column looks like the text; it has: a, b"),
        (pa.table([[1], [2]], names=["text", "text"]), "several columns are called 'text'"),
    ],
)
def test_a_file_that_cannot_be_read_as_described_is_refused(tmp_path, table, said):
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(SourceRefused) as refused:
        open_source(str(tmp_path / "t.parquet"))
    assert said in str(refused.value)


def test_what_is_none_is_refused(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more PAR1")
    with pytest.raises(SourceRefused, match="no Parquet file"):
        open_source(str(tmp_path / "t.parquet"))


def test_without_pyarrow_it_is_refused_with_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SourceRefused, match=r"install tagmill\[parquet\]"):
        open_source(str(path))


def test_what_was_read_before_damage_stands(path):
    data = bytearray(path.read_bytes())
    last = pq.ParquetFile(path).metadata.row_group(3).column(1)
    start = last.dictionary_page_offset or last.data_page_offset
    data[start : start + last.total_compressed_size] = b"\xff" * last.total_compressed_size
    path.write_bytes(data)
    read = []
    with pytest.raises(SourceBroken, match="reading stopped"):
        read.extend(open_source(str(path)).records())
    assert len(read) == 9


def test_a_large_group_takes_no_more_memory_than_a_small_one(tmp_path):
    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.parquet"
        table = pa.table({"text": [f"{n} " + "x" * 1_000 for n in range(rows)]})
        pq.write_table(table, path, row_group_size=rows, compression="none", use_dictionary=False)
        source = open_source(str(path))
        # What Arrow reads from a Python file it keeps as Python bytes; its own pool holds a batch.
        tracemalloc.start()
        for _ in source.records():
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(30_000) < peak(5_000) + 5_000_000
