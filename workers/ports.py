"""What the pipeline needs from the world around it: one page, no implementation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tagging.answers import Answer, CacheTier
from tagging.long_text import TRUNCATE, LongText
from tagging.messages import TagTask


class Pair(NamedTuple):
    """A premise and a hypothesis, the unit of work of the model."""

    text: str
    hypothesis: str
    long_text: LongText = TRUNCATE


class Logit(NamedTuple):
    """The two logits of a pair that scores are made of; the neutral one is never read."""

    entailment: float
    contradiction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """Which model an engine serves, and how."""

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
    """What an engine answers for ``n`` pairs."""

    logits: list[Logit]
    """One a pair, in the order asked."""
    tokens: list[int]
    """Tokens of each pair without padding, special tokens included."""
    padded_tokens: int
    """Tokens that the passes computed in all, padding included."""
    device_ms: float
    readings: list["Reading"]
    """One a pair."""


class Reading(NamedTuple):
    """How much of a pair the model has read."""

    windows: int
    """1 where it fitted or was truncated."""
    truncated: bool


class Engine(Protocol):
    """n pairs in, n rows of logits out, same order; in-process and across the process boundary alike."""

    @property
    def info(self) -> ModelInfo:
        """The model that is served."""
        ...

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        """Entailment and contradiction logits of each (text, hypothesis) pair.

        Args:
            pairs: ``n`` pairs. One of more than ``info.max_length`` tokens is read as its ``long_text`` says.

        Raises:
            DeviceOutOfMemory: The batch did not fit; nothing was scored and a smaller one may.
            EngineError: The device failed.

        Source: Yin, Hay and Roth 2019, arXiv:1909.00161.
        """
        ...

    def close(self) -> None:
        """Free the device. A closed engine refuses work."""
        ...


class CacheKey(NamedTuple):
    """Names an answer without showing the text or the labels."""

    model: str
    """Fingerprint and precision."""
    labels: str
    """Digest of the hypotheses, in any order."""
    text: str
    """Digest of the text."""


CachedLogits = Sequence[Logit]
"""One for each hypothesis of the set, in the order of the sorted hypotheses."""


class Hit(NamedTuple):
    """What a cache knew, and which one."""

    logits: CachedLogits
    tier: CacheTier


class ResultCache(Protocol):
    """Answers of a minute ago. Losing it costs time, never answers; no raw text in any key; never raises."""

    def get_many(self, keys: Sequence[CacheKey]) -> list[Hit | None]:
        """What is known, in one read, in the order of the keys."""
        ...

    def put_many(self, entries: Mapping[CacheKey, CachedLogits]) -> None:
        """Remember, in one write. An answer that is not finite is not remembered."""
        ...


class Stored(NamedTuple):
    """What is written for a task that was done."""

    task: TagTask
    task_id: str
    answer: Answer


class TagStore(Protocol):
    """Tags that stand, by document. Idempotent; never goes back to an older revision."""

    def write(self, rows: Sequence[Stored]) -> None:
        """Store the batch in one transaction.

        Raises:
            StoreUnavailable: Nothing was written; the batch has to wait.
        """
        ...


class DeadLetter(NamedTuple):
    """A message that could not be done."""

    id: str
    task: str
    queue: str
    reason: str
    attempts: int
    payload: str
    """The message's body as it came: JSON where it was JSON."""


class DeadLetters(Protocol):
    """Nothing is dropped: what cannot be done waits here with its reason, until it is requeued or dropped."""

    def park(self, letters: Sequence[DeadLetter]) -> None:
        """Keep the letters; the same id again replaces the earlier one.

        Raises:
            StoreUnavailable: Nothing was kept; the messages must not be acknowledged.
        """
        ...
