"""What one training step sees: a batch of texts, roughened, and the hypotheses asked of all of them."""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import BertTokenizer

from lab.lexicon import Lexicon
from lab.phrasings import TEMPLATES_EN, TEMPLATES_ZH, Phrasings
from lab.texts import FAMILIES, Family, LabelledText
from lab.vocabulary import CLS, MASK, PAD, SEP, SPECIAL, UNK

UNLABELLED = -100
CLAUSE_END = re.compile(r"(?<=[。！？!?；;，,\n])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One family's labels as hypotheses, one each, in one template."""

    family: Family
    hypotheses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How often questions are asked in which way."""

    canonical: float = 0.3
    english: float = 0.35
    term: float = 0.15
    """A word of the label's lexicon stands in for its wording, bare."""


class QuestionSampler:
    """Draws wordings and templates for the labels of every family; held-out wordings are out of its reach."""

    def __init__(
        self, phrasings: Phrasings, lexicon: Lexicon, rng: random.Random, *, shares: Shares | None = None
    ) -> None:
        self._phrasings = phrasings
        self._lexicon = lexicon
        self._rng = rng
        self._shares = shares or Shares()

    def ask(self) -> list[Asked]:
        """All labels of all families, each family in a language and a template of its own."""
        return [self._ask(family) for family in FAMILIES]

    def _ask(self, family: Family) -> Asked:
        english = self._rng.random() < self._shares.english
        if self._rng.random() < self._shares.term:
            terms = self._lexicon[family].values()
            return Asked(family=family, hypotheses=tuple(self._rng.choice(t.en if english else t.zh) for t in terms))
        template = self._rng.choice(TEMPLATES_EN if english else TEMPLATES_ZH)
        canonical = self._rng.random() < self._shares.canonical
        options = [wordings.en if english else wordings.zh for wordings in self._phrasings[family].values()]
        chosen = [wordings[0] if canonical else self._rng.choice(wordings) for wordings in options]
        return Asked(family=family, hypotheses=tuple(template.format(wording) for wording in chosen))


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How texts are roughened, so that a small corpus is never seen twice the same."""

    crop: float = 0.4
    """Share of texts reduced to a run of their own clauses."""
    hide: float = 0.3
    """Share of tokens hidden, on average over the texts: masked, replaced or left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Token rows, padded."""

    tokens: Tensor
    """Shape ``(n, length)``."""
    mask: Tensor
    """True where there is a token."""


class Reader:
    """Turns texts and hypotheses into token rows; each distinct string is tokenized once."""

    def __init__(self, tokenizer: BertTokenizer, rng: random.Random, *, noise: Noise, longest: int = 190) -> None:
        self._tokenizer = tokenizer
        self._rng = rng
        self._noise = noise
        self._longest = longest
        self._vocabulary = len(tokenizer)
        self._seen: dict[str, list[int]] = {}

    def read(self, texts: Sequence[str]) -> Rows:
        """Rows ``[CLS] text [SEP]`` as they are."""
        bodies = [self._tokens(text)[: self._longest] for text in texts]
        return _rows([[CLS, *body, SEP] for body in bodies])

    def roughen(self, texts: Sequence[str]) -> Rows:
        """Rows ``[CLS] text [SEP]`` with noise."""
        bodies = [self._hide(self._tokens(self._crop(text))[: self._longest]) for text in texts]
        return _rows([[CLS, *body, SEP] for body in bodies])

    def hypotheses(self, hypotheses: Sequence[str]) -> Rows:
        """Rows ``hypothesis [SEP]``."""
        return _rows([[*self._tokens(hypothesis), SEP] for hypothesis in hypotheses])

    def met(self) -> set[int]:
        """The tokens of everything read so far, and the special ones."""
        return {*range(len(SPECIAL)), *(token for tokens in self._seen.values() for token in tokens)}

    def _tokens(self, text: str) -> list[int]:
        if text not in self._seen:
            # A list of one, since the tokenizer would take some bare strings apart differently.
            self._seen[text] = self._tokenizer([text], add_special_tokens=False)["input_ids"][0]
        return self._seen[text]

    def _crop(self, text: str) -> str:
        return crop(text, self._rng) if self._rng.random() < self._noise.crop else text

    def _hide(self, tokens: Sequence[int]) -> list[int]:
        """The row with a share of its tokens hidden; the share varies from text to text.

        Of ten hidden tokens, six become [MASK], three [UNK] or nothing, and one another word.
        """
        share = 2 * self._noise.hide * self._rng.random()
        kept: list[int] = []
        for token in tokens:
            if self._rng.random() >= share:
                kept.append(token)
            elif (fate := self._rng.random()) < 0.6:
                kept.append(MASK)
            elif fate < 0.75:
                kept.append(UNK)
            elif fate < 0.85:
                kept.append(self._rng.randrange(len(SPECIAL), self._vocabulary))
        return kept


def _rows(tokens: Sequence[Sequence[int]]) -> Rows:
    length = max(map(len, tokens))
    padded = torch.tensor([[*row, *[PAD] * (length - len(row))] for row in tokens])
    mask = torch.arange(length) < torch.tensor([len(row) for row in tokens]).unsqueeze(1)
    return Rows(tokens=padded, mask=mask)


def crop(text: str, rng: random.Random) -> str:
    """A run of the text's own clauses, at least half of them, or the text where it has only one."""
    clauses = [clause for clause in CLAUSE_END.split(text) if clause]
    if len(clauses) < 2:
        return text
    kept = rng.randint((len(clauses) + 1) // 2, len(clauses))
    first = rng.randint(0, len(clauses) - kept)
    return "".join(clauses[first : first + kept])


def batches(texts: Sequence[LabelledText], tokens: int, rng: random.Random) -> Iterator[list[LabelledText]]:
    """One shuffled pass over the texts, in batches of like length and about ``tokens`` padded tokens each."""
    noisy = sorted(texts, key=lambda text: width(text) * rng.uniform(0.8, 1.25))
    packed: list[list[LabelledText]] = [[]]
    for text in noisy:
        if packed[-1] and (len(packed[-1]) + 1) * (width(text) + 2) > tokens:
            packed.append([])
        packed[-1].append(text)
    rng.shuffle(packed)
    yield from packed


def width(text: LabelledText) -> int:
    """About how many tokens the text has."""
    return len(text.text) if text.lang == "zh" else len(text.text) // 3


def targets(texts: Sequence[LabelledText], family: Family, labels: Mapping[str, object]) -> Tensor:
    """The place of each text's label among ``labels``, ``UNLABELLED`` where the text has none in this family."""
    places = {label: place for place, label in enumerate(labels)}
    return torch.tensor([places.get(text.label(family), UNLABELLED) for text in texts])
