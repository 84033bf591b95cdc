"""Pairs as token ids, exactly as ModelScope's pipeline makes them.

Its tokenizer is transformers 4's BertTokenizer, written in Python. Here the Rust tokenizer does the work wherever the
two are known to agree (`FAST`), and the Python one does the rest. Each text and each hypothesis is tokenised once,
however many pairs it is in; joining and truncating is ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import is_normalized

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import BertTokenizer
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from workers.engines.checkpoint import SPECIAL_TOKENS
from workers.engines.network import Packed
from workers.engines.windows import starts
from workers.ports import Pair

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


Ids = NDArray[np.int32]

SPECIALS = 3  # [CLS] text [SEP] hypothesis [SEP]
HYPOTHESES = 4096  # remembered; label sets are asked again and again


class Encoded(NamedTuple):
    """One pair as the model reads it, in two pieces: pairs of one text share its piece."""

    text: Ids  # [CLS] text [SEP], segment 0
    hypothesis: Ids  # hypothesis [SEP], segment 1

    @property
    def tokens(self) -> int:
        return len(self.text) + len(self.hypothesis)

    @property
    def ids(self) -> list[int]:
        return [*self.text.tolist(), *self.hypothesis.tolist()]


def pack(encoded: Sequence[Encoded]) -> Packed:
    """The pairs end to end, in their order."""
    pieces = [piece for pair in encoded for piece in pair]
    sizes = np.fromiter(map(len, pieces), dtype=np.int32, count=len(pieces))
    segments = np.repeat(np.tile(np.array([0, 1], dtype=np.int32), len(encoded)), sizes)
    return Packed(np.concatenate(pieces), segments, sizes.reshape(-1, 2).sum(axis=1, dtype=np.int32))


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
        self._max_length = max_length
        self._python = python
        self._rust = _rust_twin(python, protect_special_tokens=protect_special_tokens)
        self._lower: bool = python.do_basic_tokenize and python.do_lower_case
        self._protect = protect_special_tokens
        self._specials = re.compile("(" + "|".join(map(re.escape, python.all_special_tokens)) + ")")
        self._cls: int = python.cls_token_id
        self._sep: int = python.sep_token_id
        self._remembered = Remembered(HYPOTHESES)

    def encode(self, pairs: Sequence[Pair]) -> list[Encoded]:
        """Token ids of each pair, same order."""
        texts = self.texts({pair.text for pair in pairs})
        hypotheses = self.hypotheses({pair.hypothesis for pair in pairs})
        return [self.join(texts[pair.text], hypotheses[pair.hypothesis]) for pair in pairs]

    def texts(self, strings: Iterable[str]) -> dict[str, Ids]:
        """`[CLS] text [SEP]` of each, however long."""
        return {string: _array([self._cls, *ids, self._sep]) for string, ids in self._ids(strings).items()}

    def hypotheses(self, strings: Iterable[str]) -> dict[str, Ids]:
        """`hypothesis [SEP]` of each, however long; those asked lately are remembered."""
        known = {string: self._remembered.get(string) for string in strings}
        new = self._ids(string for string, ids in known.items() if ids is None)
        found = {string: ids for string, ids in known.items() if ids is not None}
        found |= {string: _array([*ids, self._sep]) for string, ids in new.items()}
        self._remembered.update(found)
        return found

    def join(self, text: Ids, hypothesis: Ids) -> Encoded:
        """The pair of what `texts` and `hypotheses` gave, the longer side truncated first."""
        excess = len(text) + len(hypothesis) - self._max_length
        if excess <= 0:
            return Encoded(text, hypothesis)
        cut_text, cut_hypothesis = cuts(len(text) - 2, len(hypothesis) - 1, excess)
        return Encoded(_shortened(text, cut_text), _shortened(hypothesis, cut_hypothesis))

    def fits(self, text: Ids, hypothesis: Ids) -> bool:
        """Whether the pair is read whole."""
        return len(text) + len(hypothesis) <= self._max_length

    def windows(self, text: Ids, hypothesis: Ids, *, overlap: int) -> list[Encoded]:
        """All of the text, in pairs with the hypothesis that fit; see `workers.engines.windows`.

        A hypothesis that would leave the text less than half the window is cut to half.
        """
        half = (self._max_length - SPECIALS) // 2
        hypothesis = _shortened(hypothesis, max(0, len(hypothesis) - 1 - half))
        inner = text[1:-1]
        room = self._max_length - len(hypothesis) - 2
        return [
            Encoded(np.concatenate([text[:1], inner[start : start + room], text[-1:]]), hypothesis)
            for start in starts(len(inner), room=room, overlap=overlap)
        ]

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


class Remembered:
    """Token ids of the strings used last, at most `limit` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ids: dict[str, Ids] = {}

    def get(self, string: str) -> Ids | None:
        return self._ids.get(string)

    def update(self, used: Mapping[str, Ids]) -> None:
        """Keep these as the last used; the longest unused go."""
        for string, ids in used.items():
            self._ids.pop(string, None)
            self._ids[string] = ids
        for string in list(self._ids)[: max(0, len(self._ids) - self._limit)]:
            del self._ids[string]


def _array(ids: list[int]) -> Ids:
    return np.array(ids, dtype=np.int32)


def _shortened(ids: Ids, cut: int) -> Ids:
    """Without the `cut` tokens before its separator."""
    return np.append(ids[: len(ids) - 1 - cut], ids[-1:])


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
