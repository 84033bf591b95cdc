"""The output of a backfill: rows in their order with columns of their own and ours, all of them or none."""

import csv
import gzip
import json
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.backfill import destinations, outputs
from producers.backfill.destinations import Destination
from producers.backfill.outputs import write_rejects
from producers.backfill.rows import Columns, Rejected, Row
from producers.backfill.sources import open_source
from tagging.errors import OutputRefused

ANSWER = {"decision": "apply", "tags": [{"label": "物流", "score": 0.9}], "model": "demo"}


def write_output(path: Path, rows: Iterable[tuple[dict, dict]]) -> int:
    """Write them to a file."""
    return outputs.write_output(Destination.of(str(path)), rows, scratch=path.parent)


def written(tmp_path, suffix: str, *rows: tuple[dict, dict]) -> list[dict]:
    path = tmp_path / f"out{suffix}"
    assert write_output(path, rows) == len(rows)
    if suffix == ".parquet":
        from pyarrow import parquet

        return parquet.read_table(path).to_pylist()
    data = path.read_bytes()
    text = (gzip.decompress(data) if suffix.endswith(".gz") else data).decode("utf-8-sig")
    if suffix.startswith(".jsonl"):
        return [json.loads(line) for line in text.splitlines()]
    return [*csv.DictReader(text.split("\n"))]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet"])
def test_has_each_row_with_its_columns_and_then_its_answer(tmp_path, suffix):
    rows = [({"id": str(n), "text": f"第{n}行", "note": None}, ANSWER) for n in range(3)]
    out = written(tmp_path, suffix, *rows)
    assert [row["text"] for row in out] == ["第0行", "第1行", "第2行"]
    assert list(out[0]) == ["id", "text", "note", "decision", "tags", "model"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_hides_no_column_of_the_source_behind_one_of_ours(tmp_path, suffix):
    later = {"text": "b", "tags": "own", "tagmill_tags": "too"}
    _, out = written(tmp_path, suffix, ({"text": "a"}, ANSWER), (later, ANSWER))
    assert (out["tags"], out["tagmill_tags"]) == ("own", "too")
    assert "物流" in str(out["tagmill_tagmill_tags"])
    assert "apply" in out["decision"]


@pytest.mark.parametrize(("suffix", "nothing"), [(".csv", ""), (".parquet", None)])
def test_has_all_columns_though_rows_differ(tmp_path, suffix, nothing):
    first, second = written(tmp_path, suffix, ({"a": "1"}, {}), ({"b": "2"}, {}))
    assert (first, second) == ({"a": "1", "b": nothing}, {"a": nothing, "b": "2"})


def test_of_json_lines_has_only_the_columns_that_a_row_has(tmp_path):
    assert written(tmp_path, ".jsonl", ({"a": 1}, {}), ({"b": None}, {})) == [{"a": 1}, {"b": None}]


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ([1, None, -(2**63)], [1, None, -(2**63)]),
        ([True, False, None], [True, False, None]),
        ([1, 0.5], [1.0, 0.5]),
        ([1, "a", None, {"b": [1.5]}], ["1", "a", None, '{"b": [1.5]}']),
        ([2**63], [str(2**63)]),
        ([2**53 + 1, 0.5], [str(2**53 + 1), "0.5"]),  # no float holds the first
        ([True, 1], ["true", "1"]),
        ([None, None], [None, None]),
    ],
)
def test_parquet_keeps_types_and_makes_text_of_what_has_several(tmp_path, values, read):
    assert [row["v"] for row in written(tmp_path, ".parquet", *(({"v": value}, {}) for value in values))] == read


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_has_no_cell_of_ours_that_a_spreadsheet_computes(tmp_path, start):
    cell = f"{start}HYPERLINK('x')"
    write_output(tmp_path / "out.csv", [({"note": cell}, {"label": cell, "score": -0.5})])
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        [row] = csv.DictReader(file)
    assert row == {"note": cell, "label": f"'{cell}", "score": "-0.5"}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_of_no_rows_is_a_file(tmp_path, suffix):
    assert written(tmp_path, suffix) == []


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet"])
def test_that_fails_midway_leaves_what_was_there(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    path.write_text("before")

    def rows() -> Iterator[tuple[dict, dict]]:
        yield {"a": 1}, {}
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        write_output(path, rows())
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_that_fills_the_disk_leaves_what_was_there(tmp_path, monkeypatch):
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputRefused, match=r"out\.csv: No space left on device"):
        write_output(tmp_path / "out.csv", [({"a": 1}, {})])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("out.xlsx", "expected a name that ends in .jsonl, .ndjson, .csv, .parquet, or in .gz behind it"),
        ("out.gz", "expected a name that ends in"),
        ("out.parquet.gz", "leave out .gz"),
        ("nowhere/out.csv", "there is no folder"),
    ],
)
def test_is_refused_before_anything_is_done(tmp_path, name, said):
    with pytest.raises(OutputRefused) as refused:
        Destination.of(str(tmp_path / name))
    assert said in str(refused.value)


def test_two_gzipped_ones_of_the_same_rows_are_equal_to_the_byte(tmp_path, monkeypatch):
    for moment in (1.0, 2_000_000.0):
        monkeypatch.setattr("time.time", lambda moment=moment: moment)
        written(tmp_path, f"-{moment:.0f}.csv.gz", ({"a": 1}, ANSWER))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.fixture
def store(monkeypatch):
    """A store in this process, as one where an object appears as a whole."""
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr(destinations, "_OBJECT_STORES", frozenset({"memory"}))
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv.gz", "out.parquet"])
def test_in_an_object_store_is_a_source_again_and_leaves_nothing_here(tmp_path, store, name):
    spec = f"memory://bucket/folder/{name}"
    assert outputs.write_output(Destination.of(spec), [({"id": "1", "text": "文"}, ANSWER)], scratch=tmp_path) == 1
    [row] = open_source(spec).records()
    assert (row.ref, row.text, row.columns["decision"]) == ("1", "文", "apply")
    assert list(tmp_path.iterdir()) == []


def test_in_an_object_store_is_not_touched_by_one_that_fails_midway(tmp_path, store):
    def rows() -> Iterator[tuple[dict, dict]]:
        yield {"a": 1}, {}
        raise RuntimeError("midway")

    store.pipe("/bucket/out.csv", b"before")
    with pytest.raises(RuntimeError, match="midway"):
        outputs.write_output(Destination.of("memory://bucket/out.csv"), rows(), scratch=tmp_path)
    assert store.cat("/bucket/out.csv") == b"before"
    assert list(tmp_path.iterdir()) == []


def test_that_a_store_does_not_take_is_refused_without_its_credentials(tmp_path, store, monkeypatch):
    def denied(*_: object, **__: object) -> None:
        raise PermissionError("key s3cret")

    monkeypatch.setattr(type(store), "put_file", denied)
    to = Destination.of("memory://me:s3cret@bucket/out.csv")
    with pytest.raises(OutputRefused, match=r"^memory://\*\*\*@bucket/out\.csv: cannot be written: PermissionError$"):
        outputs.write_output(to, [({"a": 1}, {})], scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("sftp://host/out.csv", "on sftp:// an output could be seen before it is whole; known to do better are abfs"),
        ("s3://bucket/out.csv", "s3:// needs s3fs; install it beside tagmill[remote]"),
        ("s3://bucket/out.xlsx", "expected a name that ends in"),
    ],
)
def test_in_a_store_that_cannot_keep_it_whole_or_is_not_there_is_refused(spec, said):
    pytest.importorskip("fsspec")
    with pytest.raises(OutputRefused) as refused:
        Destination.of(spec)
    assert said in str(refused.value)


def test_in_a_store_without_fsspec_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(OutputRefused, match=r"install tagmill\[remote\]"):
        Destination.of("s3://bucket/out.csv")


def test_parquet_without_pyarrow_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OutputRefused, match=r"install tagmill\[parquet\]"):
        Destination.of(str(tmp_path / "out.parquet"))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_of_many_rows_takes_no_more_memory_than_that_of_some(tmp_path, suffix):
    def peak(rows: int) -> int:
        tracemalloc.start()
        write_output(tmp_path / f"out{suffix}", (({"id": n, "text": "x" * 10_000}, ANSWER) for n in range(rows)))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)  # imports
    assert peak(5_000) < peak(2_500) + 3_000_000


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs"]), min_size=1, max_size=8)
LETTERS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
TEXTS = LETTERS.filter(str.strip)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
NO_ROLES = {"text": "text", "ref": "", "revision": "", "kind": ""}


def read_again(path, encoding: str | None = None) -> list[dict]:
    records = [*open_source(str(path), columns=Columns(**NO_ROLES), encoding=encoding).records()]
    assert all(isinstance(record, Row) for record in records)
    return [dict(record.columns) for record in records]


def without_roles(names: set[str]) -> bool:
    return not {name.strip().casefold() for name in names} & {
        "text",
        "source",
        "tagmill_row",
        "tagmill_error",
        "tagmill_raw",
    }


@given(data=st.data(), names=st.sets(NAMES, max_size=3).filter(without_roles))
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_read_as_a_source_is_the_rows_that_were_written(tmp_path_factory, suffix, data, names):
    # The values of a column are of one kind; CSV has one kind only, of which nothing and "" are the same.
    kinds = [LETTERS] if suffix == ".csv" else [LETTERS | st.none(), NUMBERS | st.none(), st.booleans() | st.none()]
    columns = {name: data.draw(st.sampled_from(kinds)) for name in sorted(names)}
    rows = data.draw(st.lists(st.fixed_dictionaries({"text": TEXTS, **columns}), min_size=1, max_size=5))
    path = tmp_path_factory.mktemp("round") / f"out{suffix}"
    write_output(path, [(row, {}) for row in rows])
    assert read_again(path) == rows


@given(
    rejected=st.lists(
        st.builds(Rejected, number=st.integers(1), reason=LETTERS, raw=st.text())
        | st.builds(Rejected, number=st.integers(1), reason=LETTERS, columns=st.fixed_dictionaries({"text": TEXTS})),
        min_size=1,
    )
)
def test_rejects_read_as_a_source_are_the_rows_that_they_were(tmp_path_factory, rejected):
    path = tmp_path_factory.mktemp("rejects") / "t.rejects.jsonl"
    assert write_rejects(path, rejected) == len(rejected)
    records = [*open_source(str(path)).records()]
    assert [record.number for record in records] == list(range(1, len(rejected) + 1))
    for record, before in zip(records, rejected, strict=True):
        if before.columns is None:
            assert isinstance(record, Rejected)
            assert (record.raw, record.reason) == (before.raw, before.reason)
        else:
            assert isinstance(record, Row)
            assert record.columns == before.columns


def test_rejects_keep_bytes_that_are_no_text(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"text\nfine\nbroken \xff\n")
    _, broken = open_source(str(tmp_path / "t.csv"), encoding="utf-8").records()
    write_rejects(tmp_path / "r.jsonl", [broken])
    [again] = open_source(str(tmp_path / "r.jsonl")).records()
    assert again.raw.encode("utf-8", "surrogateescape") == b"broken \xff"
