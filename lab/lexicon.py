"""Words and short phrases that point to a label, and the short texts made of them."""

import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab.texts import CORPUS, FAMILIES, Family, LabelledText

SEPARATORS_ZH = ("，", "", " ", "。", "、")
SEPARATORS_EN = (", ", " ", ". ", " and ")
SHARES: dict[Family, float] = {"topic": 0.9, "intent": 0.5, "sentiment": 0.2, "urgency": 0.1}
"""How often terms of each family take part in a composed text."""
ENGLISH = 0.28


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The terms that point to one label."""

    zh: tuple[str, ...]
    en: tuple[str, ...]


Lexicon = Mapping[Family, Mapping[str, Terms]]


def load_lexicon(path: Path = CORPUS / "lexicon.toml") -> Lexicon:
    """Terms by family and canonical Chinese label."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        family: {
            label: Terms(zh=tuple(row["zh"].split()), en=_phrases(row["en"])) for label, row in tables[family].items()
        }
        for family in FAMILIES
    }


def _phrases(listed: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in listed.replace("\n", " ").split(",") if phrase.strip())


class Composer:
    """Composes short texts from the terms of a topic, mostly with those of an intent or a sentiment around them."""

    def __init__(self, lexicon: Lexicon, rng: random.Random) -> None:
        self._lexicon = lexicon
        self._rng = rng

    def compose(self) -> LabelledText:
        """One text; the families that its terms say nothing about have an empty label."""
        lang: Literal["zh", "en"] = "en" if self._rng.random() < ENGLISH else "zh"
        labels = dict.fromkeys(FAMILIES, "")
        parts: list[str] = []
        for family, share in SHARES.items():
            if self._rng.random() < share:
                labels[family], terms = self._draw(family, lang, most=4 if family == "topic" else 2)
                parts += terms
        self._rng.shuffle(parts)
        separator = self._rng.choice(SEPARATORS_EN if lang == "en" else SEPARATORS_ZH)
        return LabelledText(text=separator.join(parts), lang=lang, kind="ticket", split="train", **labels)

    def _draw(self, family: Family, lang: Literal["zh", "en"], *, most: int) -> tuple[str, list[str]]:
        label = self._rng.choice(list(self._lexicon[family]))
        terms = self._lexicon[family][label].en if lang == "en" else self._lexicon[family][label].zh
        return label, self._rng.sample(terms, self._rng.randint(1, most))
