"""A file of JSON lines is a source of backfills, and a line that is no object costs itself only."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.backfill.rows import Columns, Rejected, Row
from producers.backfill.sources.encodings import UNDECODABLE
from producers.backfill.sources.json_lines import read_json_lines
from producers.backfill.sources.lines import MAX_LINE_CHARS
from tagging.errors import SourceRefused


def read(*lines: str | bytes, after: int = 0, **columns: str):
    data = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors=UNDECODABLE, newline="")
    return list(read_json_lines(text, where="t.jsonl", columns=Columns(**columns), after=after))


def test_a_line_is_a_row_with_its_columns_in_order():
    [row] = read('{"b": [1], "text": "你好", "id": 7, "revision": 2, "kind": "comment", "source": "desk", "a": null}')
    assert (row.text, row.ref, row.revision, row.kind, row.source) == ("你好", "7", 2, "comment", "desk")
    assert list(row.columns) == ["b", "text", "id", "revision", "kind", "source", "a"]


def test_numbers_count_lines_and_reading_on_gives_what_reading_whole_gives():
    lines = ['{"body": "a"}', "", "nonsense", '{"body": "b", "text": "no"}', " ", '{"body": "c"}']
    whole = read(*lines)
    assert [record.number for record in whole] == [1, 3, 4, 6]
    for after in range(len(lines) + 1):
        assert read(*lines, after=after) == [record for record in whole if record.number > after]


def test_columns_are_looked_for_in_several_objects():
    refused, row = read('{"id": 1}', '{"id": 2, "body": "a"}')
    assert refused.reason == "body: expected a text, got nothing"
    assert row.text == "a"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", "expected a JSON object, Expecting value at character 0"),
        ('"text"', "expected a JSON object, got str"),
        ('{"text": "x", "n": NaN}', "expected a JSON object, got NaN, which JSON does not have"),
        ('{"text": "x", "n": 1e999}', "expected a JSON object, got a number that is too large"),
        ('{"text": "x", "n": ' + "[" * 100_000 + "}", "expected a JSON object, got one that is nested too deeply"),
        (r'{"text": "\ud83d"}', "expected a JSON object, got half of a surrogate pair"),
        (b'{"text": "\xff"}', "expected a JSON object, got bytes that are not utf-8"),
        (b'{"text": "\0"}', "expected a JSON object, got a NUL byte"),
    ],
)
def test_a_line_that_is_no_object_is_rejected_as_it_stands(line, reason):
    refused, row = read(line, '{"text": "fine"}')
    assert refused.reason == reason
    stands = line if isinstance(line, bytes) else line.encode()
    assert refused.raw.encode("utf-8", "surrogateescape") == stands
    assert row.text == "fine"


def test_of_a_line_without_end_only_the_beginning_is_kept():
    refused, row = read('{"text": "' + "x" * (3 * MAX_LINE_CHARS), '{"text": "fine"}')
    assert refused.reason == "expected a JSON object, got a line of 3,145,738 characters, limit is 1,048,576"
    assert len(refused.raw) == 1000
    assert row.text == "fine"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": 5}', "text: expected a text, got int"),
        ('{"text": "x", "ref": {}}', "ref: expected a reference, text or whole number, got dict"),
        ('{"text": "x", "revision": true}', "revision: expected a whole number from 0, got bool"),
        ('{"text": "x", "kind": "email"}', "kind: expected ticket or comment, got str"),
        ('{"text": "x", "source": 1}', "source: expected the name of a system, got int"),
    ],
)
def test_a_value_that_cannot_play_its_role_is_rejected_with_its_columns(line, reason):
    first = '{"text": "a", "ref": "1", "revision": 1, "kind": "ticket", "source": "s"}'
    _, refused = read(first, line)
    assert refused == Rejected(number=2, reason=reason, columns=json.loads(line))


def test_digits_of_long_numbers_are_kept():
    [row] = read('{"text": "x", "id": 123456789012345678901234567890, "share": 0.1}')
    assert row.ref == "123456789012345678901234567890"
    assert row.columns["share"] == 0.1


@pytest.mark.parametrize(
    ("lines", "columns", "said"),
    [
        (['[{"text": "a"}]'], {}, "t.jsonl: a JSON array; expected an object a line"),
        (['{"a": 1}', '{"b": 1}'], {}, "no column looks like the text; it has: a, b"),
        (['{"a": 1}'], {"text": "c", "ref": "d"}, "t.jsonl: no column 'c', 'd'; it has: a"),
    ],
)
def test_a_file_that_cannot_be_read_as_described_is_refused(lines, columns, said):
    with pytest.raises(SourceRefused) as refused:
        read(*lines, **columns)
    assert said in str(refused.value)


def test_a_file_without_an_object_has_rejected_lines_only():
    assert [type(record) for record in read("nonsense", "1")] == [Rejected, Rejected]
    assert read() == []


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
LETTERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(st.none() | st.booleans() | NUMBERS | LETTERS, st.lists, max_leaves=5)


@given(
    columns=st.dictionaries(LETTERS.filter(lambda name: "tagmill" not in name), VALUES),
    text=LETTERS,
    escaped=st.booleans(),
)
def test_whatever_python_writes_is_read_as_it_was(columns, text, escaped):
    written = {**columns, "text": text}
    roles = {"ref": "", "revision": "", "kind": ""}
    [row] = read(json.dumps({**written, "source": None}, ensure_ascii=escaped), text="text", **roles)
    assert isinstance(row, Row)
    assert row.columns == {**written, "source": None}
