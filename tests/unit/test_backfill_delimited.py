"""A CSV or TSV file is a source of backfills, and a record that cannot be read costs itself only."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.backfill.rows import Columns, Rejected, Row
from producers.backfill.sources import open_source
from producers.backfill.sources.delimited import read_delimited
from producers.backfill.sources.encodings import UNDECODABLE
from producers.backfill.sources.lines import MAX_LINE_CHARS
from tagging.errors import SourceRefused


def read(content: str | bytes, after: int = 0, delimiter: str | None = None, **columns: str):
    data = content.encode() if isinstance(content, str) else content
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors=UNDECODABLE, newline="")
    named = Columns(**columns)
    return list(read_delimited(text, where="t.csv", columns=named, delimiter=delimiter, after=after))


def texts(records) -> list[str | None]:
    return [record.text if isinstance(record, Row) else None for record in records]


def test_a_row_has_its_columns_in_order_and_what_they_say():
    [row] = read("id,title,body,revision,kind\n7,Hi,你好,3,comment\n")
    assert row == Row(
        number=1,
        columns={"id": "7", "title": "Hi", "body": "你好", "revision": "3", "kind": "comment"},
        text="你好",
        ref="7",
        revision=3,
        kind="comment",
    )


@pytest.mark.parametrize(("header", "line"), [("id,text", "1,a"), ("id;text", "1;a"), ("id\ttext", "1\ta")])
def test_the_delimiter_is_told_from_the_header(header, line):
    assert texts(read(f"{header}\n{line}\n")) == ["a"]


def test_a_named_delimiter_is_the_only_one():
    assert texts(read("id,text\ttext\n1\tx,y\n", delimiter="\t")) == ["x,y"]


def test_a_cell_in_quotes_holds_line_ends_quotes_and_delimiters():
    assert texts(read('text\n"a\r\nb ""c"", d"\ne\n')) == ['a\r\nb "c", d', "e"]


def test_empty_lines_are_no_records_and_numbers_go_on():
    assert [record.number for record in read("text\n\na\n\n\nb\n")] == [1, 2]


def test_reading_on_gives_what_reading_whole_gives():
    content = 'id,text\n1,a\n2,"b\n3,c\n4,"d"\n5\n6,f\n'
    whole = read(content)
    for after in range(len(whole) + 1):
        assert read(content, after=after) == whole[after:]


def test_a_quote_that_is_never_closed_costs_its_line():
    broken, *rest = read('id,text\n1,"never closed\n2,b\n3,"c"\n4,d\n')
    assert broken == Rejected(
        number=1,
        reason="expected delimited text, got a quote within a cell that should be doubled",
        raw='1,"never closed',
    )
    assert texts(rest) == ["b", "c", "d"]


def test_so_does_one_with_no_quote_behind_it():
    broken, *rest = read('id,text\n1,"never closed\n2,b\n3,c\n')
    assert "a quote that is never closed" in broken.reason
    assert texts(rest) == ["b", "c"]


def test_so_does_one_that_more_than_a_cell_can_hold_comes_behind():
    lines = [f"{n},{'x' * 1000}" for n in range(2, 300)]
    broken, *rest = read("\n".join(["id,text", '1,"never closed', *lines]) + "\n")
    assert "a cell of more than 131,072 characters" in broken.reason
    assert [row.ref for row in rest] == [line.split(",")[0] for line in lines]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1", "expected 2 cells, got 1"),
        (b"1,a,b", "expected 2 cells, got 3"),
        (b"1,\xff", "bytes that are not utf-8"),
        (b"1,a\0b", "a NUL byte"),
        (b"1," + b"x" * 131_073, "a cell of more than 131,072 characters"),
        (b'1,"a" b', "a quote within a cell that should be doubled"),
    ],
)
def test_a_line_that_is_wrong_is_rejected_with_what_stands_there(line, reason):
    refused, row = read(b"id,text\n" + line + b"\n2,fine\n")
    assert reason in refused.reason
    assert refused.columns is None
    assert refused.raw.encode("utf-8", "surrogateescape") == line
    assert row.text == "fine"


def test_of_a_line_without_end_only_the_beginning_is_kept():
    refused, row = read("id,text\n1," + "x" * (2 * MAX_LINE_CHARS) + "\n2,fine\n")
    assert refused.reason == "expected delimited text, got a line of 2,097,154 characters, limit is 1,048,576"
    assert len(refused.raw) == 1000
    assert row.text == "fine"


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ("7,a,-1,ticket", "revision: expected a whole number from 0, got str"),
        ("7,a,0,email", "kind: expected ticket or comment, got str"),
    ],
)
def test_a_cell_that_cannot_play_its_role_is_rejected_with_its_columns(cells, reason):
    [refused] = read(f"id,body,revision,kind\n{cells}\n")
    assert refused.reason == reason
    assert list(refused.columns.values()) == cells.split(",")


@pytest.mark.parametrize(
    ("content", "columns", "said"),
    [
        ("", {}, "t.csv: empty; expected a first line with the names of the columns"),
        ('"a\n', {}, "the first line, with the names of the columns, cannot be read"),
        ("a,b\n1,2\n", {}, "no column looks like the text; it has: a, b. Name one with --text-column"),
        ("a,b\n1,2\n", {"text": "c"}, "t.csv: no column 'c'; it has: a, b"),
        ("text,text\n1,2\n", {}, "several columns are called 'text'"),
    ],
)
def test_a_file_that_cannot_be_read_as_described_is_refused(content, columns, said):
    with pytest.raises(SourceRefused) as refused:
        read(content, **columns)
    assert said in str(refused.value)


def test_a_column_without_a_name_gets_one():
    [row] = read("text,,\na,b,c\n")
    assert dict(row.columns) == {"text": "a", "column_2": "b", "column_3": "c"}


def test_names_are_guessed_whatever_their_case_and_a_role_can_be_left_out():
    [row] = read("ID,Text,Kind\n1,a,email\n", kind="", ref="")
    assert (row.text, row.ref, row.kind) == ("a", None, "ticket")


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@given(
    rows=st.lists(st.tuples(CELL, CELL.filter(str.strip)), max_size=8), dialect=st.sampled_from(["excel", "excel-tab"])
)
def test_whatever_python_writes_is_read_as_it_was(rows, dialect):
    written = io.StringIO(newline="")
    csv.writer(written, dialect).writerows([["note", "text"], *rows])
    records = read(written.getvalue(), delimiter=csv.get_dialect(dialect).delimiter)
    assert [tuple(record.columns.values()) for record in records] == rows


@given(content=st.text(st.sampled_from('a",\n\r\0;\t\udcff'), max_size=60))
def test_whatever_stands_there_is_read_to_its_end(content):
    data = b"x,text\n" + content.encode("utf-8", "surrogateescape")
    records = read(data)
    assert [record.number for record in records] == list(range(1, len(records) + 1))


def test_the_name_of_a_file_says_that_tabs_part_its_cells(tmp_path):
    (tmp_path / "t.tsv").write_text("id\ttext, or so\n1\ta,b\n")
    [row] = open_source(str(tmp_path / "t.tsv"), columns=Columns(text="text, or so")).records()
    assert row.text == "a,b"
