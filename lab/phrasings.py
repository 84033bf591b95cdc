"""The ways to say each label, in Chinese and English, and the wordings kept out of training."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.texts import CORPUS, FAMILIES, Family

TEMPLATE = "这段话属于{}。"
"""The default hypothesis: it reads naturally with a topic, an intent, a sentiment and an urgency alike."""

TEMPLATES_ZH = (
    "{}",
    TEMPLATE,
    "这段文字与{}有关。",
    "这是一条关于{}的反馈。",
    "说的是{}",
    "类别：{}",
    "这条内容属于{}类",
)
TEMPLATES_EN = (
    "{}",
    TEMPLATE,
    "This text is about {}.",
    "This example is {}.",
    "The category is {}.",
    "It is about {}",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wordings:
    """The wordings of one label; the first of ``zh`` and of ``en`` is canonical, ``held_out`` ones never train."""

    zh: tuple[str, ...]
    en: tuple[str, ...]
    held_out_zh: tuple[str, ...]
    held_out_en: tuple[str, ...]


Phrasings = Mapping[Family, Mapping[str, Wordings]]


def load_phrasings(path: Path = CORPUS / "phrasings.toml") -> Phrasings:
    """Wordings by family and canonical Chinese label, in the order in which labels are asked."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        family: {
            label: Wordings(**{name: tuple(wordings) for name, wordings in table.items()})
            for label, table in tables[family].items()
        }
        for family in FAMILIES
    }
