"""What the pipeline needs from the world around it: one page, no implementation."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tagging.answers import Answer
from tagging.documents import Document
from tagging.long_text import TRUNCATE, LongText
from tagging.messages import TagTask
from workers.metrics import Metric


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
    exact: bool = False
    """Whether a special token that is typed in a text becomes one, as with ModelScope."""


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
    shrunk: int = 0
    """How often a pass did not fit on the device and was halved, which makes those after it smaller."""


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


class TextKey(NamedTuple):
    """Names what is asked about a text, for caches, without showing it."""

    model: str
    """Everything about the model that its logits depend on: fingerprint, precision, tokens where a pair is cut."""
    text: str
    """Digest of the text."""


WantedPairs = Mapping[TextKey, Collection[bytes]]
"""Pairs that are asked for: by text, the digests of the hypotheses."""
KnownPairs = Mapping[TextKey, Mapping[bytes, Logit]]
"""Pairs with their logits: by text, then by the digest of the hypothesis. A text without any is left out."""


class PairCache(Protocol):
    """Logits of pairs asked before, so that overlapping label sets pay only for what is new.

    Losing it costs time, never answers; no text and no label in any key; never raises; safe to share between threads.
    """

    def get_many(self, wanted: WantedPairs) -> KnownPairs:
        """What is known of what is wanted, in one read."""
        ...

    def put_many(self, pairs: KnownPairs) -> None:
        """Remember, beside what is known of the same texts, in one write. What is not finite is not remembered."""
        ...

    def forget(self, keys: Collection[TextKey]) -> None:
        """Know nothing of these texts any more, until somebody asks about them again."""
        ...


class Claimed(NamedTuple):
    """What a cache that several workers share says to one of them."""

    known: KnownPairs
    promised: Mapping[TextKey, Collection[bytes]]
    """Pairs that another worker is computing; whatever is neither known nor promised is the asker's to compute."""


class SharedPairCache(PairCache, Protocol):
    """A ``PairCache`` through which workers also tell each other what they are computing."""

    @property
    def is_up(self) -> bool:
        """Whether it was reached the last time; while it is not, there is nothing to wait for."""
        ...

    def claim_many(self, wanted: WantedPairs, *, claimant: str, lifetime_ms: int) -> Claimed:
        """What is known, and a claim by ``claimant`` on the rest unless others hold one; in one round trip.

        Args:
            claimant: 8 ASCII characters that are this worker's own.
            lifetime_ms: A claim is forgotten after so long, whether or not its pairs came.
        """
        ...


class Meter(Protocol):
    """Where figures about the work go; never fails. Safe to share between threads."""

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Count so much more of a counter of ``workers.metrics``, under its labels."""
        ...

    def observe(self, metric: Metric, *values: float, **labels: str) -> None:
        """Note each value of a histogram of ``workers.metrics``, under its labels."""
        ...


class Stored(NamedTuple):
    """What is written for a task that was done."""

    task: TagTask
    task_id: str
    answer: Answer
    key: TextKey
    """Of the text."""
    logits: Mapping[bytes, Logit]
    """Of the answer's pairs, by the digest of the hypothesis."""


class Sought(NamedTuple):
    """A text about which something may be known from earlier answers about its document."""

    document: Document
    key: TextKey
    hypotheses: Collection[bytes]
    """Digests of those that are open."""


class TagStore(Protocol):
    """Tags that stand, by document. Idempotent; never goes back to an older revision, nor to an erased document."""

    def write(self, rows: Sequence[Stored], *, done: Sequence[str] = ()) -> frozenset[Document]:
        """Store the batch in one transaction, in which the messages that it answers are finished in the intake.

        Args:
            rows: Answers, with the ids of the messages that asked.
            done: Ids of further messages that are finished, though nothing is stored for them.

        Returns:
            The documents of the batch that were erased: nothing of theirs was written.

        Raises:
            StoreUnavailable: Nothing was written; the batch has to wait.
        """
        ...

    def known(self, sought: Sequence[Sought]) -> KnownPairs:
        """What was kept with answers that stand: the pairs of the same documents, texts and model, in one read.

        Raises:
            StoreUnavailable: Nothing is known of what is known.
        """
        ...


class Crashes(Protocol):
    """Runs of messages that came back, counted before they begin, so that a worker's death leaves its trace."""

    def begin(self, message_id: str) -> int:
        """How many runs of this message have begun without an end, this one included; kept before it returns.

        Raises:
            StoreUnavailable: The message must not run uncounted.
        """
        ...

    def end(self, message_ids: Sequence[str]) -> None:
        """Forget the counts of these messages: their workers outlived them.

        Raises:
            StoreUnavailable: The counts are as they were.
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
        """Keep the letters, without the texts of erased documents; the same id again replaces the earlier one.

        Raises:
            StoreUnavailable: Nothing was kept; the messages must not be acknowledged.
        """
        ...
