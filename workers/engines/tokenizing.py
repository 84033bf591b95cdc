"""Pairs as token ids, exactly as ModelScope's pipeline makes them.

Its tokenizer is transformers 4's BertTokenizer, written in Python. Here the Rust tokenizer does the work wherever the
two are known to agree (`FAST`), and the Python one does the rest. Each text and each hypothesis is tokenised once,
however many pairs it is in; joining and truncating is ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from unicodedata import is_normalized

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import BertTokenizer
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from workers.engines.checkpoint import SPECIAL_TOKENS
from workers.ports import Pair

SPECIALS = 3  # [CLS] text [SEP] hypothesis [SEP]

# Whole ranges in which both tokenizers were compared on every code point, alone and between letters, marks and
# ideographs (`tests/engine/test_tokenizing.py` repeats it). Unassigned and new code points differ, because each side
# has its own Unicode tables. Whatever is not listed goes to the Python tokenizer and is merely slower.
FAST = (
    (0x0000, 0x0377),  # ASCII, Latin, combining marks
    (0x0391, 0x03A1),  # Greek
    (0x03A3, 0x03FF),
    (0x0400, 0x052F),  # Cyrillic
    (0x2000, 0x2064),  # spaces, joiners, dashes, quotes
    (0x20A0, 0x20BF),  # currency
    (0x2100, 0x218B),  # letter-like, number forms
    (0x2190, 0x2426),  # arrows, operators, technical
    (0x2460, 0x2B73),  # enclosed numbers, boxes, symbols, dingbats
    (0x3000, 0x303F),  # CJK punctuation
    (0x3041, 0x3096),  # kana
    (0x3099, 0x30FF),
    (0x3105, 0x312F),  # bopomofo
    (0x3220, 0x4DBF),  # enclosed CJK, ideographs
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),  # Hangul
    (0xF900, 0xFA6D),
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFE30, 0xFE52),
    (0xFF01, 0xFFBE),  # full-width
    (0xFFE0, 0xFFE6),
    (0x1F300, 0x1F6D7),  # emoji
    (0x1F90C, 0x1F9FF),
    (0x20000, 0x2A6DF),
)
_slow_character = re.compile("[^" + "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in FAST) + "]").search


class Encoded(NamedTuple):
    """One pair as the model reads it."""

    ids: list[int]
    first: int  # tokens of segment 0: [CLS] text [SEP]


class Stacked(NamedTuple):
    """Pairs side by side, each array of shape (pairs, tokens of the longest)."""

    ids: NDArray[np.int64]
    segments: NDArray[np.int64]
    present: NDArray[np.bool_]  # False where a row is only padding


def stack(encoded: Sequence[Encoded], *, pad_id: int) -> Stacked:
    """The pairs padded to the longest of them."""
    lengths = np.array([len(pair.ids) for pair in encoded])[:, None]
    firsts = np.array([pair.first for pair in encoded])[:, None]
    columns = np.arange(lengths.max())[None, :]
    present = columns < lengths
    ids = np.full(present.shape, pad_id, dtype=np.int64)
    ids[present] = list(chain.from_iterable(pair.ids for pair in encoded))
    return Stacked(ids, ((columns >= firsts) & present).astype(np.int64), present)


class PairEncoder:
    """Turns pairs into token ids; the longer side of a pair is truncated first.

    Args:
        directory: Holds `vocab.txt` and `tokenizer_config.json`.
        max_length: Tokens a pair may have, specials included.
        protect_special_tokens: `[SEP]` and its like in a text stay plain text. False is what ModelScope does: whoever
            writes `[SEP]` in a ticket moves the border between text and hypothesis.
    """

    def __init__(self, directory: Path, *, max_length: int, protect_special_tokens: bool = True) -> None:
        python = BertTokenizerLegacy.from_pretrained(directory, local_files_only=True)
        self.pad_id: int = python.pad_token_id
        self._max_length = max_length
        self._python = python
        self._rust = _rust_twin(python, protect_special_tokens=protect_special_tokens)
        self._lower: bool = python.do_basic_tokenize and python.do_lower_case
        self._protect = protect_special_tokens
        self._specials = re.compile("(" + "|".join(map(re.escape, python.all_special_tokens)) + ")")
        self._cls: int = python.cls_token_id
        self._sep: int = python.sep_token_id

    def encode(self, pairs: Sequence[Pair]) -> list[Encoded]:
        """Token ids of each pair, same order."""
        ids = self._ids({string for pair in pairs for string in pair})
        return [self._join(ids[text], ids[hypothesis]) for text, hypothesis in pairs]

    def _ids(self, strings: Iterable[str]) -> dict[str, list[int]]:
        slow: list[str] = []
        fast: list[str] = []
        for string in strings:
            (fast if self._is_fast(string) else slow).append(string)
        ids = {string: self._slow_ids(string) for string in slow}
        if fast and self._rust is not None:
            encoded = self._rust.encode_batch_fast(fast, add_special_tokens=False)
            ids.update(zip(fast, (encoding.ids for encoding in encoded), strict=True))
        return ids

    def _is_fast(self, string: str) -> bool:
        # Keeping case, Python composes letters and marks (NFC) and Rust leaves them; lower-casing, both drop the marks.
        return self._rust is not None and not _slow_character(string) and (self._lower or is_normalized("NFC", string))

    def _slow_ids(self, string: str) -> list[int]:
        python = self._python
        if self._protect:
            tokens = python._tokenize(self._cased(string), split_special_tokens=True)
        else:
            parts = self._specials.split(string)  # odd ones are special tokens
            tokens = python.tokenize("".join(part if i % 2 else self._cased(part) for i, part in enumerate(parts)))
        ids: list[int] = python.convert_tokens_to_ids(tokens)
        return ids

    def _cased(self, string: str) -> str:
        # transformers 4 lower-cases character by character before anything else; the Python tokenizer of 5 does it word
        # by word, where a final capital sigma comes out differently.
        return "".join(map(str.lower, string)) if self._lower else string

    def _join(self, text: list[int], hypothesis: list[int]) -> Encoded:
        excess = len(text) + len(hypothesis) + SPECIALS - self._max_length
        if excess > 0:
            cut_text, cut_hypothesis = cuts(len(text), len(hypothesis), excess)
            text, hypothesis = text[: len(text) - cut_text], hypothesis[: len(hypothesis) - cut_hypothesis]
        return Encoded([self._cls, *text, self._sep, *hypothesis, self._sep], len(text) + 2)


def cuts(text: int, hypothesis: int, excess: int) -> tuple[int, int]:
    """How many tokens the text and the hypothesis lose: the longer side first, then both in turn.

    Where the rest is odd the hypothesis loses one more, whichever side was longer: so the Python tokenizer decides.
    """
    first = min(abs(text - hypothesis), excess)
    rest = excess - first
    if text > hypothesis:
        return first + rest // 2, rest - rest // 2
    return rest // 2, first + rest - rest // 2


def _rust_twin(python: BertTokenizerLegacy, *, protect_special_tokens: bool) -> Tokenizer | None:
    """The Rust tokenizer that does what `python` does, or None where its settings have no counterpart."""
    plain = (
        python.do_basic_tokenize
        and not python.basic_tokenizer.never_split
        and python.basic_tokenizer.strip_accents is None
        and set(python.added_tokens_encoder) <= set(SPECIAL_TOKENS)
        and set(python.all_special_tokens) <= set(SPECIAL_TOKENS)
    )
    if not plain:
        return None
    twin = BertTokenizer(
        vocab=dict(python.vocab),
        do_lower_case=python.do_lower_case,
        tokenize_chinese_chars=python.basic_tokenizer.tokenize_chinese_chars,
    )
    tokenizer: Tokenizer = twin.backend_tokenizer
    tokenizer.encode_special_tokens = protect_special_tokens
    return tokenizer
