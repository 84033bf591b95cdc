"""A source is read wherever it lies, plain or gzipped, in memory that does not grow with it."""

import gzip
import io
import random
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from producers.backfill.rows import Columns, Record
from producers.backfill.sources import open_source, without_password
from tagging.errors import SourceBroken, SourceRefused

LINES = b'{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n'
CSV = b"id,text\n1,a\n2,b\n"


def texts(spec: object, after: int = 0, **named) -> list[str]:
    return [record.text for record in open_source(str(spec), **named).records(after=after)]


@pytest.fixture
def stdin(monkeypatch):
    """Bytes that come through a pipe, a few at a time."""

    class Pipe(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self._rest = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:
            piece = self._rest.read(min(len(buffer), 7))
            buffer[: len(piece)] = piece
            return len(piece)

    def fed(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Pipe(data), buffer_size=1)))

    return fed


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", CSV),
        ("t.CSV.GZ", gzip.compress(CSV, mtime=0)),
        ("t.csv", gzip.compress(CSV, mtime=0)),  # whatever its name says
        ("t.csv.gz", CSV),
        ("t.csv", gzip.compress(CSV[:10], mtime=0) + gzip.compress(CSV[10:], mtime=0)),
        ("t.jsonl", LINES),
        ("t.ndjson.gz", gzip.compress(LINES, mtime=0)),
        ("no-suffix", LINES),
    ],
)
def test_a_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert texts(tmp_path / name) == ["a", "b"]
    assert texts(tmp_path / name, after=1) == ["b"]


@pytest.mark.parametrize("content", [LINES, gzip.compress(LINES, mtime=0)], ids=["plain", "gzipped"])
def test_standard_input(stdin, content):
    stdin(content)
    assert texts("-") == ["a", "b"]


def test_standard_input_of_a_named_format(stdin):
    stdin(CSV)
    assert texts("-", file_format="csv", after=1) == ["b"]


def test_an_object_store():
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://bucket/t.csv.gz", "wb") as file:
        file.write(gzip.compress(CSV, mtime=0))
    assert texts("memory://bucket/t.csv.gz") == ["a", "b"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("s3://bucket/t.csv", "s3:// needs s3fs; install it beside tagmill[remote]"),
        ("oss://bucket/t.csv", "oss:// needs ossfs; install it beside tagmill[remote]"),
        ("memory://bucket/nothing.csv", "cannot be opened: FileNotFoundError"),
        ("nosuch://me:hunter2@host/t.csv", "nosuch://***@host/t.csv: cannot be opened"),
    ],
)
def test_a_store_that_cannot_be_reached_is_refused_without_its_password(spec, said):
    with pytest.raises(SourceRefused) as refused:
        open_source(spec)
    assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_without_fsspec_a_store_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(SourceRefused, match=r"install tagmill\[remote\]"):
        open_source("s3://bucket/t.csv")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.csv", None, "No such file or directory"),
        ("t.txt", CSV, "cannot tell its format; name it with --format csv, tsv, jsonl, parquet"),
        ("t.csv", b"a,b\n1,2\n", "no column looks like the text"),
    ],
)
def test_what_cannot_be_read_is_refused_when_it_is_opened(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceRefused) as refused:
        open_source(str(tmp_path / name))
    assert said in str(refused.value)


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(SourceRefused, match="no format 'xlsx'; known are csv, tsv, jsonl, parquet"):
        open_source(str(tmp_path), file_format="xlsx")


def test_what_was_read_before_a_file_breaks_off_stands(tmp_path):
    lines = b"".join(b'{"text": "%d"}\n' % random.Random(n).getrandbits(64) for n in range(9_000))
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(lines, mtime=0)[:-5_000])
    read: list[Record] = []
    with pytest.raises(SourceBroken, match="reading stopped: EOFError"):
        read.extend(open_source(str(tmp_path / "t.jsonl.gz")).records())
    assert 5_000 < len(read) < 9_000


def test_a_fingerprint_stands_for_the_place_and_how_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_bytes(CSV)
    monkeypatch.chdir(tmp_path)
    here = open_source("t.csv").fingerprint
    assert open_source(str(tmp_path / "t.csv")).fingerprint == here
    assert open_source("t.csv", columns=Columns(text="id")).fingerprint != here
    assert open_source("t.csv", encoding="utf-8").fingerprint != here
    (tmp_path / "t.csv").write_bytes(b"text\nother\n")
    assert open_source("t.csv").fingerprint == here


@pytest.mark.parametrize(
    ("spec", "kept"),
    [
        ("postgresql://me:hunter2@host:5432/desk", "postgresql://me@host:5432/desk"),
        ("postgresql+psycopg://me:hun/ter2@host/desk", "postgresql+psycopg://me@host/desk"),
        ("postgresql://me@host/desk", "postgresql://me@host/desk"),
        ("s3://bucket/a:b@c.csv", "s3://bucket/a:b@c.csv"),
        ("a:b@c.csv", "a:b@c.csv"),
    ],
)
def test_what_a_job_keeps_of_it_has_no_password(spec, kept):
    assert without_password(spec) == kept


def test_reading_can_stop_anywhere(tmp_path):
    (tmp_path / "t.csv").write_bytes(CSV)
    with closing(open_source(str(tmp_path / "t.csv")).records()) as records:
        assert next(records).text == "a"


def chunks(size: int) -> Iterator[bytes]:
    row = b'"%d","' + "包裹还没有到，".encode() * 12 + b'"\n'
    yield b"id,text\n"
    for first in range(0, size // len(row), 1000):
        yield b"".join(row % n for n in range(first, first + 1000))


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_fifty_megabytes_take_no_more_memory_than_five(tmp_path, name):
    def peak(size: int) -> int:
        path: Path = tmp_path / name
        with gzip.open(path, "wb", compresslevel=1) if name.endswith(".gz") else path.open("wb") as file:
            file.writelines(chunks(size))
        source = open_source(str(path))
        tracemalloc.start()
        for _ in source.records():
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    small, large = peak(5_000_000), peak(50_000_000)
    assert large < small + 1_000_000
    assert large < 16_000_000
