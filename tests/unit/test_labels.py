"""Labels are checked when they are asked, and label sets when they are loaded."""

from pathlib import Path

import pytest

from tagging.errors import InvalidMessage, SettingsError, UnknownLabelSet
from tagging.labels import LabelBook, check_labels, near_duplicates
from tagging.long_text import TRUNCATE, LongText


def test_labels_are_trimmed_and_keep_their_order() -> None:
    assert check_labels([" b ", "a"], max_labels=2) == ("b", "a")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([], "labels: none given; ask for at least one"),
        (["a", " "], "labels: one is empty"),
        (["a\nb"], r"labels: 'a\\nb' holds control characters"),
        (["x" * 65], "has 65 characters, limit is 64"),
        (["Billing", "billing "], "'Billing' and 'billing' are the same; drop one"),
        (["ＡＢ", "ab"], "'ＡＢ' and 'ab' are the same; drop one"),
        (["a", "b", "c"], r"labels: 3 given, limit is 2 \(labels.max_per_request\); split them"),
        (["refund", "refunds", "login"], "near-duplicates that could be merged: 'refund' and 'refunds'"),
    ],
)
def test_labels_that_cannot_be_asked_are_refused_with_the_reason(labels: list[str], reason: str) -> None:
    with pytest.raises(InvalidMessage, match=reason):
        check_labels(labels, max_labels=2)


def test_labels_that_hardly_differ_are_found() -> None:
    assert near_duplicates(["退款", "申请退款", "物流"]) == [("退款", "申请退款")]
    assert near_duplicates(["billing", "login"]) == []


def test_ten_thousand_labels_are_refused_without_comparing_each_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr("tagging.labels._alike", lambda a, b: bool(compared.append(a)))
    with pytest.raises(InvalidMessage, match="labels: 10000 given, limit is 10"):
        check_labels([f"label {i}" for i in range(10_000)], max_labels=10)
    assert len(compared) < 2000


def test_a_book_is_read_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "support.toml").write_text(
        'labels = ["a", "b"]\nmulti_label = true\napply_at = 0.8\nthresholds.a = 0.9'
    )
    support = LabelBook.load(tmp_path, max_labels=10).get("support")
    assert (support.labels, support.multi_label) == (("a", "b"), True)
    assert (support.policy.apply_at, dict(support.policy.per_label)) == (0.8, {"a": 0.9})


def test_a_set_may_have_long_texts_read_in_windows(tmp_path: Path) -> None:
    (tmp_path / "plain.toml").write_text('labels = ["a"]')
    (tmp_path / "reports.toml").write_text('labels = ["a"]\nlong_text = "mean"\noverlap = 32')
    book = LabelBook.load(tmp_path, max_labels=9)
    assert book.get("plain").long_text == TRUNCATE
    assert book.get("reports").long_text == LongText("mean", 32)


def test_a_book_names_every_file_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text("labels = []")
    (tmp_path / "two.toml").write_text('labels = ["a"]\ncolour = "red"')
    (tmp_path / "three.toml").write_text('labels = ["a"]\nthresholds.b = 0.9')
    (tmp_path / "four.toml").write_text("labels = [")
    (tmp_path / "five.toml").write_text('labels = ["a"]\nsuggest_at = 0.9')
    with pytest.raises(SettingsError) as error:
        LabelBook.load(tmp_path, max_labels=10)
    assert len(error.value.problems) == 5
    for name in ("one", "two", "three", "four", "five"):
        assert f"{name}.toml: " in str(error.value)


def test_no_folder_is_an_empty_book(tmp_path: Path) -> None:
    book = LabelBook.load(tmp_path / "none", max_labels=10)
    assert len(book) == 0
    with pytest.raises(UnknownLabelSet, match="this worker knows: none"):
        book.get("support")
