"""The demo model's own vocabulary, in BERT's ``vocab.txt`` format: Chinese characters singly, English in pieces."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import BertTokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))
ASCII = "".join(map(chr, range(33, 127))).lower()
PUNCTUATION = "，。！？、；：“”‘’（）《》【】—…·～￥％＋－＝／℃°×"
LONGEST_PIECE = 8


def build_vocabulary(texts: Iterable[str], *, whole_words: int = 2, pieces: int = 600) -> list[str]:
    """Specials, characters, then English words and pieces, each once; the same texts give the same list.

    Args:
        texts: Training texts and wordings.
        whole_words: How often a lower-case English word must occur to stand whole.
        pieces: How many word beginnings, and how many continuations, are kept for the other words.
    """
    characters: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for text in texts:
        lowered = text.lower()
        words.update(re.findall(r"[a-z]{2,}", lowered))
        characters.update(character for character in lowered if not character.isspace())
    single = sorted({*ASCII, *PUNCTUATION, *common_chinese(), *characters})
    whole = [word for word, count in words.items() if count >= whole_words]
    letters = [f"##{character}" for character in ASCII if character.isalnum()]
    return list(dict.fromkeys([*SPECIAL, *single, *letters, *sorted(whole), *_word_pieces(words, pieces)]))


def common_chinese() -> str:
    """The 3,755 most common simplified characters: level 1 of the national standard GB 2312."""
    cells = (bytes((row, cell)) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF))
    return b"".join(cells).decode("gb2312", errors="ignore")


def _word_pieces(words: Counter[str], keep: int) -> list[str]:
    """Word beginnings and continuations that save the most letters over the distinct words."""
    savings: Counter[str] = Counter()
    for word in words:
        for start in range(len(word)):
            for end in range(start + 2, min(len(word), start + LONGEST_PIECE) + 1):
                savings[("##" if start else "") + word[start:end]] += end - start - 1
    best = sorted(savings, key=lambda piece: (-savings[piece], piece))
    beginnings = [piece for piece in best if not piece.startswith("##")][:keep]
    return beginnings + [piece for piece in best if piece.startswith("##")][:keep]


def write_vocabulary(vocabulary: Sequence[str], path: Path) -> None:
    """One token a line; the line number is the token's id."""
    path.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")


def tokenizer(vocabulary: Path) -> BertTokenizer:
    """The standard BERT tokenizer over a ``vocab.txt``: lower-casing, Chinese characters split singly."""
    return BertTokenizer(vocab=str(vocabulary), do_lower_case=True)
