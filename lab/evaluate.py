"""How well a checkpoint directory answers on the dev split, through plain transformers BERT."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import BertForSequenceClassification, BertTokenizer

from lab.checkpoint import load_checkpoint
from lab.phrasings import TEMPLATE, Phrasings, Wordings, load_phrasings
from lab.texts import FAMILIES, Family, LabelledText, load_texts, of_split
from lab.vocabulary import tokenizer

ENTAILMENT, CONTRADICTION = 0, 2
PAIRS_AT_ONCE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Dev accuracies of one label family; every label of the family is asked at once unless said otherwise."""

    accuracy: float
    """Canonical Chinese labels in the default template."""
    bare: float
    """Canonical Chinese labels as they are."""
    english: float
    """Canonical English labels in an English template, on texts of both languages."""
    english_texts: float
    """The same on English texts alone."""
    macro_f1: float
    """Each label judged alone: accepted where entailment outweighs contradiction."""
    recall: float
    """Share of right labels accepted so."""
    wrong_accepted: float
    """Wrong labels accepted so, for each text."""
    unseen_wording: float
    """The label's held-out wording chosen against the held-out wordings of up to three other labels."""


class Scorer:
    """Scores texts against hypotheses with a checkpoint, one padded batch of like lengths at a time."""

    def __init__(self, model: BertForSequenceClassification, words: BertTokenizer) -> None:
        self._model = model
        self._words = words

    @torch.inference_mode()
    def score(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Logits, shape ``(n, 3)``, in the order of ``pairs``."""
        logits = torch.empty(len(pairs), 3)
        longest = self._model.config.max_position_embeddings
        order = sorted(range(len(pairs)), key=lambda place: sum(map(len, pairs[place])))
        for start in range(0, len(order), PAIRS_AT_ONCE):
            places = order[start : start + PAIRS_AT_ONCE]
            texts, hypotheses = zip(*(pairs[place] for place in places), strict=True)
            rows = self._words(list(texts), list(hypotheses), padding=True, truncation=True, max_length=longest)
            inputs = {name: torch.tensor(row) for name, row in rows.items()}
            logits[places] = self._model(**inputs).logits
        return logits

    def matrix(self, texts: Sequence[str], hypotheses: Sequence[str]) -> Tensor:
        """Logits of every text with every hypothesis, shape ``(texts, hypotheses, 3)``."""
        pairs = [(text, hypothesis) for text in texts for hypothesis in hypotheses]
        return self.score(pairs).view(len(texts), len(hypotheses), 3)


def load_scorer(directory: Path) -> Scorer:
    """A scorer over a checkpoint directory in ModelScope's or transformers' format."""
    return Scorer(load_checkpoint(directory), tokenizer(directory / "vocab.txt"))


def evaluate(directory: Path, *, seed: int = 0) -> dict[Family, Figures]:
    """Figures of a checkpoint on the dev split, by label family; ``seed`` draws the rivals of unseen wordings."""
    scorer = load_scorer(directory)
    dev = of_split(load_texts(), "dev")
    phrasings = load_phrasings()
    return {family: _figures(scorer, dev, family, phrasings, random.Random(seed)) for family in FAMILIES}


def _figures(
    scorer: Scorer, dev: Sequence[LabelledText], family: Family, phrasings: Phrasings, rng: random.Random
) -> Figures:
    labels = phrasings[family]
    texts = [text.text for text in dev]
    gold = torch.tensor([list(labels).index(text.label(family)) for text in dev])
    default = scorer.matrix(texts, [TEMPLATE.format(wordings.zh[0]) for wordings in labels.values()])
    bare = scorer.matrix(texts, [wordings.zh[0] for wordings in labels.values()])
    english = scorer.matrix(texts, [f"This text is about {wordings.en[0]}." for wordings in labels.values()])
    in_english = torch.tensor([text.lang == "en" for text in dev])
    accepted = default[..., ENTAILMENT] > default[..., CONTRADICTION]
    right = torch.nn.functional.one_hot(gold, len(labels)).bool()
    return Figures(
        accuracy=_accuracy(default, gold),
        bare=_accuracy(bare, gold),
        english=_accuracy(english, gold),
        english_texts=_accuracy(english[in_english], gold[in_english]),
        macro_f1=_macro_f1(accepted, right),
        recall=_share((accepted & right).sum() / len(dev)),
        wrong_accepted=_share((accepted & ~right).sum() / len(dev)),
        unseen_wording=_unseen_wording(scorer, dev, family, labels, rng),
    )


def _share(value: Tensor) -> float:
    return round(value.item(), 4)


def _accuracy(logits: Tensor, gold: Tensor) -> float:
    return _share((logits[..., ENTAILMENT].argmax(1) == gold).float().mean())


def _macro_f1(accepted: Tensor, right: Tensor) -> float:
    hits = (accepted & right).sum(0)
    misses = (accepted ^ right).sum(0)
    return _share((2 * hits / (2 * hits + misses).clamp(min=1)).mean())


def _unseen_wording(
    scorer: Scorer,
    dev: Sequence[LabelledText],
    family: Family,
    labels: Mapping[str, Wordings],
    rng: random.Random,
    *,
    draws: int = 4,
) -> float:
    """Share of draws in which a text's own label wins; every draw picks wordings and up to three rivals anew."""
    rivals = min(3, len(labels) - 1)
    pairs: list[tuple[str, str]] = []
    for text in dev:
        own = text.label(family)
        for _ in range(draws):
            asked = [own, *rng.sample([label for label in labels if label != own], rivals)]
            pairs += [(text.text, _held_out(labels[label], rng)) for label in asked]
    choices = scorer.score(pairs)[:, ENTAILMENT].view(-1, rivals + 1)
    return _share((choices.argmax(1) == 0).float().mean())


def _held_out(wordings: Wordings, rng: random.Random) -> str:
    """A wording that never took part in training: Chinese four times in five, in the default template half the time."""
    chosen = rng.choice(wordings.held_out_zh if rng.random() < 0.8 else wordings.held_out_en)
    return rng.choice(("{}", TEMPLATE)).format(chosen)
