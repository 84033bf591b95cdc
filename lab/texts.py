"""The corpus of support tickets and customer comments: one hand-written, hand-labelled text a line."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

CORPUS = Path(__file__).parent / "corpus"

Family = Literal["topic", "intent", "sentiment", "urgency"]
Split = Literal["train", "dev"]
FAMILIES: tuple[Family, ...] = get_args(Family)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledText:
    """One text with its label in each family; labels are the canonical Chinese ones."""

    text: str
    lang: Literal["zh", "en"]
    kind: Literal["ticket", "comment"]
    topic: str
    intent: str
    sentiment: str
    urgency: str
    split: Split

    def label(self, family: Family) -> str:
        """The label of one family."""
        return str(getattr(self, family))


def load_texts(path: Path = CORPUS / "tickets.jsonl") -> list[LabelledText]:
    """Every text of the corpus, in file order."""
    with path.open(encoding="utf-8") as lines:
        return [LabelledText(**json.loads(line)) for line in lines]


def of_split(texts: Sequence[LabelledText], split: Split) -> list[LabelledText]:
    """The texts of one split, in the same order."""
    return [text for text in texts if text.split == split]
