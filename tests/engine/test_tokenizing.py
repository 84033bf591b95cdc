"""Pairs become the token ids that ModelScope's Python tokenizer makes of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer
from transformers.models.bert.tokenization_bert_legacy import BasicTokenizer

from tests.engine.reference import Reference
from workers.engines.tokenizing import FAST, Encoded, PairEncoder, Remembered, cuts, pack
from workers.ports import Pair

SPECIALS = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
CLS, SEP = 2, 3
MAX_LENGTH = 512

TICKETS = st.text(st.sampled_from("快递物流退款 abcXYZ019,.!，。？Σσ[]#@é\u0301😀\n"), max_size=60)
UNICODE = st.text(st.characters(), max_size=30)  # surrogates and unassigned code points, too
TYPED = st.lists(st.sampled_from(["[SEP]", "[MASK]", "[CLS]", "[PAD]", "[UNK]", "[sep]", " ", "退款", "abc"])).map(
    "".join
)
LONG = st.builds(lambda text, times: text * times, st.sampled_from(["快递", "abc ", "x"]), st.integers(0, 400))
TEXTS = st.one_of(TICKETS, UNICODE, TYPED, LONG)


@pytest.fixture(scope="module")
def reference(checkpoint_dir: Callable[[str], Path]) -> Reference:
    return Reference(checkpoint_dir("plain"))


@pytest.fixture(scope="module")
def exact(checkpoint_dir: Callable[[str], Path]) -> PairEncoder:
    return PairEncoder(checkpoint_dir("plain"), max_length=MAX_LENGTH, protect_special_tokens=False)


@pytest.fixture(scope="module")
def protected(checkpoint_dir: Callable[[str], Path]) -> PairEncoder:
    return PairEncoder(checkpoint_dir("plain"), max_length=MAX_LENGTH)


@pytest.fixture(scope="module")
def cased_reference(checkpoint_dir: Callable[[str], Path]) -> Reference:
    return Reference(checkpoint_dir("cased"))


@pytest.fixture(scope="module")
def cased(checkpoint_dir: Callable[[str], Path]) -> PairEncoder:
    return PairEncoder(checkpoint_dir("cased"), max_length=MAX_LENGTH, protect_special_tokens=False)


def ids(encoder: PairEncoder, text: str, hypothesis: str = "") -> list[int]:
    return encoder.encode([Pair(text, hypothesis)])[0].ids


@given(text=TEXTS, hypothesis=TEXTS)
@settings(max_examples=300, deadline=None)
def test_any_pair_has_the_ids_of_the_reference(
    exact: PairEncoder, reference: Reference, text: str, hypothesis: str
) -> None:
    assert ids(exact, text, hypothesis) == reference.ids(text, hypothesis)


@given(text=TEXTS, hypothesis=TEXTS)
@example(text="e\u0301", hypothesis="か\u3099")
@settings(max_examples=100, deadline=None)
def test_a_vocabulary_that_keeps_case_has_the_references_ids_too(
    cased: PairEncoder, cased_reference: Reference, text: str, hypothesis: str
) -> None:
    assert ids(cased, text, hypothesis) == cased_reference.ids(text, hypothesis)


@given(text=TICKETS, hypothesis=UNICODE)
@settings(max_examples=100, deadline=None)
def test_without_typed_special_tokens_protection_changes_nothing(
    exact: PairEncoder, protected: PairEncoder, text: str, hypothesis: str
) -> None:
    assert ids(exact, text, hypothesis) == ids(protected, text, hypothesis)


@given(text=TEXTS, hypothesis=TEXTS)
@settings(max_examples=200, deadline=None)
def test_a_protected_text_has_no_special_token_but_ours(protected: PairEncoder, text: str, hypothesis: str) -> None:
    encoded = protected.encode([Pair(text, hypothesis)])[0]
    inner = encoded.text.tolist()[1:-1] + encoded.hypothesis.tolist()[:-1]
    assert encoded.ids[0] == CLS
    assert encoded.text[-1] == encoded.hypothesis[-1] == SEP
    assert not {SPECIALS[name] for name in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")} & set(inner)


@pytest.mark.parametrize("text", ["[SEP]", "a [MASK] b", "[CLS][PAD][UNK]", "🫠 [SEP]"])
def test_typed_special_tokens_become_brackets_and_letters(protected: PairEncoder, text: str) -> None:
    assert not set(ids(protected, text)[1:-2]) & {0, 2, 3, 4}


def test_a_typed_separator_counts_when_comparing_with_modelscope(exact: PairEncoder) -> None:
    assert ids(exact, "[SEP]", "[MASK]") == [CLS, SEP, SEP, SPECIALS["[MASK]"], SEP]


def test_empty_sides_keep_their_separators(exact: PairEncoder) -> None:
    assert ids(exact, "", "") == [CLS, SEP, SEP]


def test_segment_one_begins_after_the_texts_separator(exact: PairEncoder) -> None:
    encoded = exact.encode([Pair("快递", "物流")])[0]
    assert (len(encoded.text), len(encoded.hypothesis)) == (len("快递") + 2, len("物流") + 1)
    assert pack([encoded]).segments.tolist() == [0] * 4 + [1] * 3


def test_packed_pairs_lie_end_to_end() -> None:
    rows = pack([Encoded(_ids(2, 7, 3), _ids(8, 3)), Encoded(_ids(2, 3), _ids(9, 3))])
    assert rows.ids.tolist() == [2, 7, 3, 8, 3, 2, 3, 9, 3]
    assert rows.segments.tolist() == [0, 0, 0, 1, 1, 0, 0, 1, 1]
    assert rows.lengths.tolist() == [5, 4]


def test_of_the_hypotheses_the_last_used_are_remembered() -> None:
    remembered = Remembered(2)
    remembered.update({"a": _ids(1), "b": _ids(2)})
    remembered.update({"a": _ids(1), "c": _ids(3)})
    assert [remembered.get(string) is not None for string in "abc"] == [True, False, True]


def _ids(*ids: int) -> np.ndarray:
    return np.array(ids, dtype=np.int32)


@pytest.mark.parametrize(
    ("text", "hypothesis", "kept"),
    [(600, 4, (505, 4)), (4, 600, (4, 505)), (600, 600, (255, 254)), (600, 400, (255, 254)), (400, 600, (255, 254))],
)
def test_the_longer_side_is_cut_first_and_a_tie_costs_the_hypothesis(
    text: int, hypothesis: int, kept: tuple[int, int]
) -> None:
    excess = text + hypothesis + 3 - MAX_LENGTH
    cut_text, cut_hypothesis = cuts(text, hypothesis, excess)
    assert (text - cut_text, hypothesis - cut_hypothesis) == kept


def test_a_checkpoints_own_length_is_kept(checkpoint_dir: Callable[[str], Path]) -> None:
    encoder = PairEncoder(checkpoint_dir("short"), max_length=48)
    assert len(ids(encoder, "快递" * 100, "物流" * 100)) == 48


def test_a_capital_sigma_at_the_end_of_a_word_is_lowered_as_anywhere_else(exact: PairEncoder) -> None:
    assert ids(exact, "ΟΔΟΣ") == ids(exact, "οδοσ")
    assert ids(exact, "ΟΔΟΣ 🫠")[:-3] == ids(exact, "οδοσ")[:-2], "the Python tokenizer, too"


@pytest.mark.parametrize("lower", [True, False], ids=["lower", "cased"])
def test_both_tokenizers_agree_on_every_character_of_the_fast_set(lower: bool) -> None:
    rust: Any = BertTokenizer(vocab=dict(SPECIALS), do_lower_case=lower).backend_tokenizer
    basic: Any = BasicTokenizer
    python = basic(do_lower_case=lower)

    def rust_words(text: str) -> list[str]:
        return [word for word, _ in rust.pre_tokenizer.pre_tokenize_str(rust.normalizer.normalize_str(text))]

    def python_words(text: str) -> list[str]:
        words: list[str] = python.tokenize("".join(map(str.lower, text)) if lower else text)
        return words

    for first, last in FAST:
        for start in range(first, last + 1, 256):
            points = [chr(point) for point in range(start, min(start + 256, last + 1))]
            # What stands around each character shows whether it was dropped, split off, joined or lowered.
            text = " ".join(f"a{point}b{point}\u0301中" for point in points)
            text = text if lower else unicodedata.normalize("NFC", text)
            assert rust_words(text) == python_words(text), f"U+{start:04X}"


def test_the_fast_set_knows_no_surrogate_and_nothing_newer_than_unicode_14() -> None:
    newest = [chr(0x1FAE8), chr(0x1FA77), chr(0x1F6DC), "\ud800", chr(0x323AF)]
    assert not any(first <= ord(point) <= last for point in newest for first, last in FAST)
