"""Labels: when two are the same, which are too alike, and the label sets that have a name."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tagging.errors import InvalidMessage, SettingsError, UnknownLabelSet
from tagging.long_text import DEFAULT_OVERLAP, TRUNCATE, LongText, Overlap, Rule
from tagging.mistakes import expected
from tagging.text import normalise_label

MAX_LABEL_CHARS: Final = 64
_ALIKE: Final = 0.75
_MOST_COMPARED: Final = 48
"""Of too many labels so many are compared for what could be merged: each with each, which takes ms. Of ten thousand it
would take hours."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When a score becomes a tag: at or above ``apply_at`` it is applied, at or above ``suggest_at`` suggested."""

    apply_at: float = 0.5
    suggest_at: float = 0.3
    per_label: Mapping[str, float] = field(default_factory=dict)
    """Label (as written in the set) to the score from which it is applied, where that differs from ``apply_at``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """Labels that are asked together under a name, and how their scores are read."""

    name: str
    labels: tuple[str, ...]
    multi_label: bool = False
    template: str | None = None
    policy: Policy = field(default_factory=Policy)
    long_text: LongText = TRUNCATE


class _LabelSetFile(BaseModel):
    """One file ``config/labels/<name>.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    description: str = ""
    labels: list[str]
    multi_label: bool = False
    template: str | None = None
    apply_at: Share = 0.5
    suggest_at: Share = 0.3
    thresholds: dict[str, Share] = {}
    long_text: Rule = "truncate"
    overlap: Overlap = DEFAULT_OVERLAP


class LabelBook:
    """The named label sets of a deployment. An unknown name is answered with the known ones."""

    def __init__(self, sets: Sequence[LabelSet] = ()) -> None:
        self._sets = {s.name: s for s in sets}

    def __iter__(self) -> Iterator[LabelSet]:
        return iter(self._sets.values())

    def __len__(self) -> int:
        return len(self._sets)

    def get(self, name: str) -> LabelSet:
        """The set of this name.

        Raises:
            UnknownLabelSet: There is none; the text lists those there are.
        """
        try:
            return self._sets[name]
        except KeyError:
            raise UnknownLabelSet(name, sorted(self._sets)) from None

    @classmethod
    def load(cls, folder: Path, *, max_labels: int) -> "LabelBook":
        """Every ``*.toml`` of the folder; the file's name is the set's name.

        Raises:
            SettingsError: Names every file that is wrong, and why.
        """
        sets: list[LabelSet] = []
        problems: list[str] = []
        for path in sorted(folder.glob("*.toml")) if folder.is_dir() else []:
            try:
                sets.append(_read_set(path, max_labels=max_labels))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError, InvalidMessage) as e:
                problems.append(f"{path}: {_first_line(e)}")
        if problems:
            raise SettingsError(problems)
        return cls(sets)


def check_labels(labels: Sequence[str], *, max_labels: int) -> tuple[str, ...]:
    """The labels, trimmed, in the order given.

    Raises:
        InvalidMessage: None, too many, one empty or too long, or two that are the same after normalisation.
    """
    return _checked(tuple(labels), max_labels)


def near_duplicates(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of labels that a model can hardly tell apart: one contains the other, or most letters agree."""
    return [(a, b) for a, b in combinations(labels, 2) if _alike(_letters(a), _letters(b))]


# The same labels are asked about text after text.
@lru_cache(maxsize=1024)
def _checked(labels: tuple[str, ...], max_labels: int) -> tuple[str, ...]:
    trimmed = tuple(label.strip() for label in labels)
    if not trimmed:
        raise InvalidMessage("labels: none given; ask for at least one")
    for label in trimmed:
        _refuse_unfit(label)
    _refuse_duplicates(trimmed)
    if len(trimmed) > max_labels:
        raise InvalidMessage(_too_many(trimmed, max_labels))
    return trimmed


def _refuse_unfit(label: str) -> None:
    if not label:
        raise InvalidMessage("labels: one is empty")
    if not label.isprintable():
        raise InvalidMessage(f"labels: {label[:16]!r} holds control characters")
    if len(label) > MAX_LABEL_CHARS:
        raise InvalidMessage(f"labels: {label[:16]!r}… has {len(label)} characters, limit is {MAX_LABEL_CHARS}")


def _refuse_duplicates(labels: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for label in labels:
        key = normalise_label(label)
        if key in seen:
            raise InvalidMessage(f"labels: {seen[key]!r} and {label!r} are the same; drop one")
        seen[key] = label


def _too_many(labels: Sequence[str], max_labels: int) -> str:
    text = f"labels: {len(labels)} given, limit is {max_labels} (labels.max_per_request)"
    alike = near_duplicates(labels[:_MOST_COMPARED])
    if not alike:
        return f"{text}; split them into several requests"
    pairs = ", ".join(f"{a!r} and {b!r}" for a, b in alike[:3])
    return f"{text}; near-duplicates that could be merged: {pairs}"


def _letters(label: str) -> str:
    return "".join(c for c in normalise_label(label) if c.isalnum())


def _alike(a: str, b: str) -> bool:
    if not a or not b:
        return False
    if len(a) > 1 and len(b) > 1 and (a in b or b in a):
        return True
    return SequenceMatcher(None, a, b).ratio() >= _ALIKE


def _read_set(path: Path, *, max_labels: int) -> LabelSet:
    raw = _LabelSetFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    labels = check_labels(raw.labels, max_labels=max_labels)
    unknown = sorted(set(raw.thresholds) - set(labels))
    if unknown:
        raise InvalidMessage(f"thresholds for labels that the set does not have: {', '.join(unknown)}")
    if raw.suggest_at > raw.apply_at:
        raise InvalidMessage(f"suggest_at {raw.suggest_at} is above apply_at {raw.apply_at}")
    policy = Policy(apply_at=raw.apply_at, suggest_at=raw.suggest_at, per_label=raw.thresholds)
    return LabelSet(
        name=path.stem,
        labels=labels,
        multi_label=raw.multi_label,
        template=raw.template,
        policy=policy,
        long_text=LongText(raw.long_text, raw.overlap),
    )


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(str(p) for p in first['loc'])}: {expected(first, of=_LabelSetFile)}"
    return str(error)
