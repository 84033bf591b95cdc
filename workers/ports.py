"""What the pipeline needs from the parts around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Pair(NamedTuple):
    text: str
    hypothesis: str


class Logit(NamedTuple):
    entailment: float
    contradiction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    name: str
    fingerprint: str
    revision: str
    family: str
    precision: str
    device: str
    max_length: int
    template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entailment:
    logits: list[Logit]  # one a pair, same order
    tokens: list[int]  # unpadded tokens of each pair, specials included
    padded_tokens: int  # what the passes computed in all
    device_ms: float


class Engine(Protocol):
    @property
    def info(self) -> ModelInfo: ...

    def entail(self, pairs: Sequence[Pair]) -> Entailment: ...

    def close(self) -> None: ...
