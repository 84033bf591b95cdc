"""The encoding of a file is told from its beginning, and bytes that it does not know cost their line only."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.backfill.rows import Rejected
from producers.backfill.sources import open_source
from producers.backfill.sources.encodings import detect
from tagging.errors import SourceRefused

CHINESE = "id,text\n1,包裹还没有到，请帮我查一下物流\n2,Wi-Fi 连不上\n"


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        (b"", "utf-8"),
        (b"id,text\n1,plain\n", "utf-8"),
        (CHINESE.encode(), "utf-8"),
        (CHINESE.encode("utf-8-sig"), "utf-8-sig"),
        (CHINESE.encode("gb18030"), "gb18030"),
        (CHINESE.encode("gbk"), "gb18030"),
        ("text\n㐀𠮷，四个字节的字\n".encode("gb18030"), "gb18030"),
        (CHINESE.encode("utf-16"), "utf-16"),
        (codecs.BOM_UTF16_BE + CHINESE.encode("utf-16-be"), "utf-16"),
    ],
)
def test_is_told(head, encoding):
    assert detect(head, where="t.csv") == encoding


def test_a_head_that_ends_within_a_character_does_not_mislead():
    for encoding in ("utf-8", "gb18030"):
        whole = (CHINESE * 3).encode(encoding)
        for end in range(40, len(whole)):
            assert detect(whole[:end], where="t.csv") == encoding


def test_a_damaged_line_does_not_make_another_encoding_of_a_file():
    lines = [line.encode() for line in CHINESE.splitlines()]
    assert detect(b"\n".join([*lines, b"3,\xff\xfe\x81", *lines, b""]), where="t.csv") == "utf-8"


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("text\nLe café fermé à Noël, désolé\n".encode("cp1252"), "neither UTF-8 nor GB 18030"),
        (CHINESE.encode("utf-16-le"), "looks like UTF-16 without a byte-order mark"),
        (b"\x00\x01\x02\x00\x00\x00", "looks like UTF-16"),
    ],
)
def test_what_cannot_be_told_is_refused_with_the_option_that_says_it(head, said):
    with pytest.raises(SourceRefused) as refused:
        detect(head, where="t.csv")
    assert said in str(refused.value)
    assert "--encoding" in str(refused.value)


@pytest.mark.parametrize("encoding", ["no-such", "base64", "rot13"])
def test_an_encoding_that_is_none_of_text_is_refused(tmp_path, encoding):
    with pytest.raises(SourceRefused, match=f"--encoding {encoding}: no encoding of text"):
        open_source(str(tmp_path), encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_a_row_that_is_damaged_far_behind_the_beginning_is_rejected_alone(tmp_path, encoding):
    good = "包裹还没有到,1\n".encode(encoding)
    before = (2 << 20) // len(good)
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,id\n" + good * before + b"\xff\x30,2\n" + good)
    *_, last, damaged, next_ = open_source(str(path)).records()
    assert damaged.number == before + 1
    assert isinstance(damaged, Rejected)
    assert damaged.reason == f"expected delimited text, got bytes that are not {encoding}"
    assert last.text == next_.text == "包裹还没有到"


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@given(texts=st.lists(TEXT, min_size=1, max_size=5), encoding=st.sampled_from(["utf-8-sig", "utf-16", "gb18030"]))
def test_whatever_is_written_in_an_encoding_is_read_in_it(tmp_path_factory, texts, encoding):
    path = tmp_path_factory.mktemp("encoded") / "rows.csv"
    rows = "".join('"' + text.replace('"', '""') + '"\r\n' for text in texts)
    path.write_bytes(f"text\r\n{rows}".encode(encoding))
    named = "gb18030" if encoding == "gb18030" else None
    assert [row.text for row in open_source(str(path), encoding=named).records()] == texts
