"""A file of JSON lines is a source and an output of backfills, and a file of rejects is both."""

import json
from pathlib import Path

import pytest

from producers.backfill.jsonl import JsonLines, write_lines, write_rejects
from producers.backfill.rows import Columns, Rejected, Row
from tagging.errors import OutputRefused, SourceRefused


def source(tmp_path: Path, *lines: str | bytes, **columns: str) -> JsonLines:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return JsonLines(path=path, columns=Columns(**columns))


def test_a_line_is_a_row_with_its_columns_in_order(tmp_path):
    [row] = source(tmp_path, '{"b": 1, "text": "你好", "id": 7, "revision": 2, "kind": "comment", "a": null}').records()
    assert (row.number, row.text, row.ref, row.revision, row.kind) == (1, "你好", "7", 2, "comment")
    assert list(row.columns) == ["b", "text", "id", "revision", "kind", "a"]


@pytest.mark.parametrize("name", ["text", "content", "body", "description"])
def test_usual_names_of_the_text_are_guessed(tmp_path, name):
    [row] = source(tmp_path, json.dumps({name: "x"})).records()
    assert row.text == "x"


def test_a_named_column_is_the_only_one_that_counts(tmp_path):
    ok, refused = source(tmp_path, '{"text": "a", "message": "b"}', '{"text": "a"}', text="message").records()
    assert (ok.text, refused.reason) == ("b", "message: expected a text, got nothing")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", "expected a JSON object, Expecting value"),
        ("[1]", "expected a JSON object, got list"),
        ('{"text": 5}', "expected a text, got int"),
        ('{"text": "x", "revision": -1}', "revision: expected a whole number"),
        ('{"text": "x", "revision": true}', "revision: expected a whole number"),
        ('{"text": "x", "kind": "email"}', "kind: expected ticket or comment"),
        (b"\xff\xfe", "expected UTF-8"),
    ],
)
def test_a_line_that_is_wrong_says_why_and_leaves_the_others_alone(tmp_path, line, reason):
    refused, row = source(tmp_path, line, '{"text": "fine"}').records()
    assert isinstance(refused, Rejected)
    assert isinstance(row, Row)
    assert reason in refused.reason


def test_reads_on_behind_a_line_and_counts_empty_ones(tmp_path):
    rows = source(tmp_path, '{"text": "a"}', "", '{"text": "b"}', '{"text": "c"}').records(after=1)
    assert [row.number for row in rows] == [3, 4]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    [row] = source(tmp_path, b"\xef\xbb\xbf" + b'{"text": "a"}').records()
    assert row.text == "a"


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SourceRefused, match="no such file"):
        JsonLines(path=tmp_path / "nothing", columns=Columns())


def test_its_fingerprint_changes_with_how_it_is_read(tmp_path):
    assert source(tmp_path).fingerprint == source(tmp_path, "{}").fingerprint
    assert source(tmp_path).fingerprint != source(tmp_path, text="other").fingerprint


def test_output_that_fails_midway_leaves_what_was_there(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("before")

    def rows():
        yield {"a": 1}
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        write_lines(path, rows())
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_output_into_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(OutputRefused, match="No such file or directory"):
        write_lines(tmp_path / "nowhere" / "out.jsonl", [])


def test_rejects_read_again_are_the_rows_they_were(tmp_path):
    columns = {"text": "x", "n": 1, "名": "值"}
    write_rejects(tmp_path / "r.jsonl", [Rejected(number=4, reason="why", columns=columns)])
    [row] = JsonLines(path=tmp_path / "r.jsonl", columns=Columns()).records()
    assert row.text == "x"
    assert dict(row.columns) == {**columns, "tagmill_row": 4, "tagmill_error": "why"}


def test_a_record_that_was_never_a_row_keeps_its_bytes_in_the_rejects(tmp_path):
    [refused] = source(tmp_path, b'{"text": "\xff"}').records()
    write_rejects(tmp_path / "r.jsonl", [refused])
    [line] = (tmp_path / "r.jsonl").read_bytes().splitlines()
    assert b"\xff" in line
