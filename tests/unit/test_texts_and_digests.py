"""Texts are cleaned, digested and shown redacted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagging.digests import hypothesis_digests, label_set_digest, text_digest
from tagging.redaction import redacted
from tagging.text import clean, normalise_label

any_text = st.text(st.characters(exclude_categories=[]))  # surrogates and controls included


@given(any_text)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(any_text)
def test_a_clean_text_can_be_stored_and_sent(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode()
    assert "\x00" not in cleaned
    assert "\r" not in cleaned


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("\x00a\x1bb\x7f", "ab"),
        (" \t a\tb \n", "a\tb"),
        ("\ud800", "\ufffd"),
        ("Ａﬁ①", "Ａﬁ①"),
        ("家\U0001f600", "家\U0001f600"),
    ],
)
def test_cleaning_leaves_letters_alone(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


@given(any_text)
def test_normalising_a_label_twice_is_normalising_it_once_or_no_label_at_all(text: str) -> None:
    assert normalise_label(text) == " ".join(normalise_label(text).split())


@given(st.lists(any_text, max_size=6))
def test_the_digest_of_labels_does_not_depend_on_their_order(labels: list[str]) -> None:
    assert label_set_digest(labels) == label_set_digest(reversed(labels))


def test_digests_keep_parts_apart_and_texts_from_labels() -> None:
    assert label_set_digest(["ab", "c"]) != label_set_digest(["a", "bc"])
    assert text_digest("a") != label_set_digest(["a"])


@given(st.lists(any_text, max_size=6, unique=True))
def test_each_hypothesis_has_a_digest_of_its_own_whatever_stands_beside_it(hypotheses: list[str]) -> None:
    digests = hypothesis_digests(tuple(hypotheses))
    assert list(digests.values()) == hypotheses
    assert all(next(iter(hypothesis_digests((h,)))) == digest for digest, h in digests.items())


def test_a_hundred_thousand_hypotheses_have_as_many_digests() -> None:
    assert len(hypothesis_digests(tuple(map(str, range(100_000))))) == 100_000


def test_a_pepper_changes_every_digest() -> None:
    assert hypothesis_digests(("a",), pepper="x").keys().isdisjoint(hypothesis_digests(("a",)))
    assert text_digest("a", pepper="x") != text_digest("a") != text_digest("a", pepper="y")


def test_digests_of_text_that_utf8_does_not_know_are_digests() -> None:
    assert len(text_digest("\ud800")) == 32


def test_a_message_is_shown_by_its_length_digest_and_where_it_came_from() -> None:
    body = {"text": "secret", "labels": ["a", "b"], "source": "zendesk", "ref": "T-1", "label_set": "support"}
    shown = redacted([body], {})
    assert shown.startswith("<6 chars, blake2b:")
    assert shown.endswith(", 2 labels, source=zendesk, ref=T-1, label_set=support>")
    assert redacted([], body) == shown


def test_many_texts_are_shown_by_their_number_and_total_length() -> None:
    shown = redacted([{"items": [{"text": "abc"}, {"text": "de"}, {"text": "f"}]}], {})
    assert shown.startswith("<3 texts, 6 chars, blake2b:")


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["text", "items", "labels", "colour"]),
            st.just("SECRET")
            | st.lists(st.just("SECRET"))
            | st.lists(st.dictionaries(st.just("text"), st.just("SECRET"))),
        )
        | st.just("SECRET"),
        max_size=2,
    )
)
def test_whatever_comes_no_text_is_shown(args: list[object]) -> None:
    assert "SECRET" not in redacted(args, {})


def test_a_long_reference_is_shown_in_part() -> None:
    assert f"ref={'x' * 31}…" in redacted([{"text": "", "ref": "x" * 50}], {})
