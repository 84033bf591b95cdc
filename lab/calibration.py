"""The texts and hypotheses on which INT8 ranges are measured: a draw from the training split, made again the same."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from lab.phrasings import TEMPLATE, Phrasings, load_phrasings
from lab.texts import FAMILIES, LabelledText, load_texts, of_split

TEXTS = 256
SEED = 1


def draw(*, texts: int = TEXTS, seed: int = SEED) -> Iterator[dict[str, object]]:
    """So many texts, each with a right and a wrong label of some family, in both languages and both templates."""
    rng = random.Random(seed)
    phrasings = load_phrasings()
    for text in rng.sample(of_split(load_texts(), "train"), texts):
        yield {"text": text.text, "hypotheses": _hypotheses(text, phrasings, rng)}


def write(path: Path) -> None:
    """Write the draw, a JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in draw()), encoding="utf-8")


def _hypotheses(text: LabelledText, phrasings: Phrasings, rng: random.Random) -> list[str]:
    family = rng.choice(FAMILIES)
    right = text.label(family)
    wrong = rng.choice([label for label in phrasings[family] if label != right])
    return [_hypothesis(phrasings[family][label].zh, phrasings[family][label].en, rng) for label in (right, wrong)]


def _hypothesis(zh: tuple[str, ...], en: tuple[str, ...], rng: random.Random) -> str:
    return rng.choice(("{}", TEMPLATE)).format(rng.choice(zh if rng.random() < 0.8 else en))
