"""Trains the demo model: a small cross-encoder for zero-shot classification, from scratch, on the corpus beside it.

One seeded command reads ``lab/corpus`` and writes a checkpoint directory; no other data and no trained weights take
part. Each step encodes a batch of texts and all labels of every family, worded and framed at random, and scores all
pairs (see ``lab.demo_model`` for why that is cheap). The same seed, thread count and processor kind give the same
weights.
"""

import copy
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertForSequenceClassification

from lab.baseline import baseline_accuracy
from lab.checkpoint import save_checkpoint
from lab.demo_model import Segment, Size, brain_floats, encode, entail, new_model, pin
from lab.evaluate import evaluate
from lab.lexicon import Composer, Lexicon, load_lexicon
from lab.model_card import Run, write_card
from lab.pairs import UNLABELLED, Asked, Noise, QuestionSampler, Reader, batches, targets
from lab.phrasings import TEMPLATES_EN, TEMPLATES_ZH, Phrasings, load_phrasings
from lab.texts import FAMILIES, Family, LabelledText, load_texts, of_split
from lab.vocabulary import UNK, build_vocabulary, tokenizer, write_vocabulary

WEIGHTS: dict[Family, float] = {"topic": 1.5, "intent": 1.0, "sentiment": 0.7, "urgency": 0.3}
ENTAILED, CONTRADICTED = 0, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything about a training but its data and its seed."""

    size: Size = field(default_factory=Size)
    noise: Noise = field(default_factory=Noise)
    epochs: float = 18.0
    batch_tokens: int = 2560
    composed: float = 0.4
    """Texts composed from the lexicon in each epoch, for each hand-written one."""
    learning_rate: float = 1e-3
    warm_up: float = 0.06
    weight_decay: float = 0.05
    dropout: float = 0.15
    entailed_weight: float = 3.0
    """How much an entailed pair counts beside a contradicted one; it sets where scores cross one half."""
    pair_loss: float = 0.5
    label_loss: float = 1.0
    memory: float = 0.998
    """Decay of the averaged weights, which are the ones shipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """All that a training reads."""

    texts: Sequence[LabelledText]
    phrasings: Phrasings
    lexicon: Lexicon

    def strings(self) -> Iterable[str]:
        """Every string that may pass through the network, for the vocabulary."""
        yield from (text.text for text in self.texts)
        for family in FAMILIES:
            for wordings in self.phrasings[family].values():
                yield from (*wordings.zh, *wordings.en)
            for terms in self.lexicon[family].values():
                yield from (*terms.zh, *terms.en)
        yield from (*TEMPLATES_ZH, *TEMPLATES_EN)


def train(
    out: Path,
    *,
    seed: int = 1,
    minutes: float | None = None,
    threads: int | None = None,
    echo: Callable[[str], None] = print,
) -> dict[str, dict[str, float]]:
    """Train on the train split, measure on the dev split, and write checkpoint and model card to ``out``.

    Args:
        out: The checkpoint's directory; made if missing, files in it are replaced.
        seed: Fixes every draw.
        minutes: Train no longer than this, on a shorter schedule, at the price of repeatability. Measuring comes after.
        threads: Processor threads; torch's own choice if none.
        echo: Takes a line of progress now and then.

    Returns:
        The figures of each family, as ``lab.evaluate`` names them, with ``baseline`` among them.
    """
    run = fit(out, seed=seed, minutes=minutes, threads=threads, echo=echo)
    echo(f"trained {run.steps} steps in {run.minutes:.1f} minutes; measuring on the dev split")
    return measure(out, run)


def measure(out: Path, run: Run) -> dict[str, dict[str, float]]:
    """Figures of the checkpoint in ``out`` beside the baseline's, which also go onto its model card."""
    texts = load_texts()
    baseline = baseline_accuracy(of_split(texts, "train"), of_split(texts, "dev"))
    figures = evaluate(out)
    write_card(out, run, figures, baseline)
    return {family: asdict(row) | {"baseline": baseline[family]} for family, row in figures.items()}


def fit(
    out: Path,
    *,
    seed: int,
    minutes: float | None,
    threads: int | None,
    echo: Callable[[str], None],
    recipe: Recipe | None = None,
) -> Run:
    """Train and write the checkpoint to ``out``; the arguments are those of ``train``, and perhaps another recipe."""
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    material = Material(texts=of_split(load_texts(), "train"), phrasings=load_phrasings(), lexicon=load_lexicon())
    out.mkdir(parents=True, exist_ok=True)
    write_vocabulary(build_vocabulary(material.strings()), out / "vocab.txt")
    trainer = Trainer(material, out / "vocab.txt", recipe=recipe or Recipe(), rng=random.Random(seed))
    started = time.monotonic()
    trainer.run(limit_s=math.inf if minutes is None else 60 * minutes, echo=echo)
    save_checkpoint(trainer.finished(), out)
    spent = (time.monotonic() - started) / 60
    return Run(seed=seed, threads=torch.get_num_threads(), steps=trainer.step, epochs=trainer.epoch, minutes=spent)


class Trainer:
    """One training run: the network, its optimiser, and the running average of its weights."""

    def __init__(self, material: Material, vocabulary: Path, *, recipe: Recipe, rng: random.Random) -> None:
        self._material = material
        self._recipe = recipe
        self._rng = rng
        tokens = tokenizer(vocabulary)
        self._reader = Reader(tokens, rng, noise=recipe.noise)
        self._questions = QuestionSampler(material.phrasings, material.lexicon, rng)
        self._composer = Composer(material.lexicon, rng)
        self.model = new_model(recipe.size, vocabulary=len(tokens), dropout=recipe.dropout)
        self._average = copy.deepcopy(self.model)
        labels = sum(map(len, material.phrasings.values()))
        # Texts and hypotheses share this head, so that a text and the wording of its label grow alike.
        self._labels = nn.Linear(recipe.size.hidden, labels)
        self._optimiser = _optimiser([self.model, self._labels], recipe)
        self.step = 0
        self.epoch = 0

    def run(self, *, limit_s: float, echo: Callable[[str], None]) -> None:
        """Train for the recipe's epochs, or for ``limit_s`` if that is shorter; the learning rate falls to match."""
        started = time.monotonic()
        epoch_steps = len(list(batches(self._epoch(), self._recipe.batch_tokens, self._rng)))
        steps = max(1, int(epoch_steps * self._recipe.epochs))
        while self.step < steps:
            self.epoch += 1
            losses: list[float] = []
            for batch in batches(self._epoch(), self._recipe.batch_tokens, self._rng):
                progress = max(self.step / steps, (time.monotonic() - started) / limit_s)
                if progress >= 1.0:
                    break
                losses.append(self._learn(batch, self._rate(progress)))
            if not losses:
                break
            echo(f"epoch {self.epoch}: step {self.step}/{steps}, loss {sum(losses) / len(losses):.3f}")

    def finished(self) -> BertForSequenceClassification:
        """The averaged network; words it never met get the embedding of [UNK], which it did learn to live with."""
        words = self._average.bert.embeddings.word_embeddings.weight
        unmet = sorted(set(range(len(words))) - self._reader.met())
        with torch.no_grad():
            words[unmet] = words[UNK].clone()
        self._average.eval()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        return self._average

    def _epoch(self) -> list[LabelledText]:
        written = self._material.texts
        return [*written, *(self._composer.compose() for _ in range(int(self._recipe.composed * len(written))))]

    def _rate(self, progress: float) -> float:
        warm = min(1.0, (progress + 1e-4) / self._recipe.warm_up)
        return self._recipe.learning_rate * warm * (0.5 + 0.5 * math.cos(math.pi * progress))

    def _learn(self, batch: Sequence[LabelledText], rate: float) -> float:
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad()
        loss = self._loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimiser.step()
        pin(self.model)
        self._remember()
        self.step += 1
        return loss.item()

    @torch.no_grad()
    def _remember(self) -> None:
        keep = min(self._recipe.memory, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(list(self._average.parameters()), list(self.model.parameters()), 1 - keep)

    def _loss(self, batch: Sequence[LabelledText]) -> Tensor:
        asked = self._questions.ask()
        rows = self._reader.roughen([text.text for text in batch])
        questions = self._reader.hypotheses([hypothesis for family in asked for hypothesis in family.hypotheses])
        with brain_floats():
            first = torch.zeros(len(batch), dtype=torch.long)
            texts = encode(self.model, rows.tokens, rows.mask, segment=0, first=first)
            # A hypothesis begins where its text ends, which is anywhere.
            begins = torch.tensor([self._rng.randrange(3, 200) for _ in range(len(questions.tokens))])
            hypotheses = encode(self.model, questions.tokens, questions.mask, segment=1, first=begins)
            logits = entail(self.model, texts, hypotheses)
            loss = self._recipe.label_loss * self._label_loss(batch, texts, hypotheses)
        return loss + self._pair_losses(batch, asked, logits)

    def _pair_losses(self, batch: Sequence[LabelledText], asked: Sequence[Asked], logits: Tensor) -> Tensor:
        total = torch.zeros(())
        by_question = torch.split(logits, [len(question.hypotheses) for question in asked], dim=1)
        for question, scored in zip(asked, by_question, strict=True):
            gold = targets(batch, question.family, self._material.phrasings[question.family])
            known = gold != UNLABELLED
            if known.any():
                choice, pairs = pair_losses(scored[known], gold[known], self._recipe.entailed_weight)
                total = total + WEIGHTS[question.family] * (choice + self._recipe.pair_loss * pairs)
        return total

    def _label_loss(self, batch: Sequence[LabelledText], texts: Segment, hypotheses: Segment) -> Tensor:
        """How well each text's [CLS] and each hypothesis's [SEP] say their labels, by themselves."""
        last = hypotheses.mask.sum(1) - 1
        named: Tensor = self._labels(hypotheses.states[torch.arange(len(last)), last])
        loss = functional.cross_entropy(named.float(), torch.arange(len(last)))
        told: Tensor = self._labels(texts.states[:, 0])
        by_family = torch.split(told.float(), [len(self._material.phrasings[family]) for family in FAMILIES], dim=1)
        for family, scores in zip(FAMILIES, by_family, strict=True):
            gold = targets(batch, family, self._material.phrasings[family])
            if (gold != UNLABELLED).any():
                loss = loss + WEIGHTS[family] * functional.cross_entropy(scores, gold, ignore_index=UNLABELLED)
        return loss


def pair_losses(logits: Tensor, gold: Tensor, entailed_weight: float) -> tuple[Tensor, Tensor]:
    """Two views of one family's pairs.

    Args:
        logits: Shape ``(texts, labels, 3)``.
        gold: Shape ``(texts,)``, each text's label.
        entailed_weight: Weight of an entailed pair; a contradicted one weighs 1.

    Returns:
        The loss of choosing the label among all by entailment, and that of judging each pair alone.
    """
    choice = functional.cross_entropy(logits[..., ENTAILED], gold)
    verdicts = torch.full(logits.shape[:2], CONTRADICTED)
    verdicts[torch.arange(len(gold)), gold] = ENTAILED
    pairs = functional.cross_entropy(logits.flatten(0, 1), verdicts.flatten(), reduction="none")
    weights = torch.where(verdicts.flatten() == ENTAILED, entailed_weight, 1.0)
    return choice, (pairs * weights).sum() / weights.sum()


def _optimiser(modules: Sequence[nn.Module], recipe: Recipe) -> torch.optim.Optimizer:
    weights = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
