"""A batch on its way: what was delivered, the texts that it asks about, and what is known of them so far."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tagging.answers import Answer
from tagging.errors import EngineError, InvalidMessage, NotFinite, TagmillError
from tagging.messages import TagTask, body_of
from workers import scoring
from workers.ports import Logit
from workers.recall import Asked, Premise


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message as the broker handed it over."""

    id: str
    task: str
    queue: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    attempts: int
    """How often it was tried before; 0 the first time."""
    came_back: bool = False
    """Whether the broker delivered it before, and a worker may have died of it."""
    queued_ms: float
    """How long it has waited so far, from being sent (if the sender said when) to being put into a batch."""

    @property
    def body(self) -> Any:
        """The message as it came, for those who repair it."""
        try:
            return body_of(self.args, self.kwargs)
        except InvalidMessage:
            return {"args": list(self.args), "kwargs": dict(self.kwargs)}


@dataclass(slots=True, kw_only=True)
class Question:
    """One text of a batch, on its way to an answer."""

    task: TagTask
    task_id: str
    asked: Asked
    logits: Sequence[Logit] = ()
    """Once it is folded: those of its labels, in their order; none where there is an error."""
    error: TagmillError | None = None
    answered_by: dict[str, int] = field(default_factory=dict)
    """Once it is folded: how many of its pairs were answered by what; ``failed`` where nothing answered."""
    tokens: int = 0
    """Once it is folded: those that the device computed for it, without padding."""

    def take_stock(self) -> None:
        """See where the pairs came from, what they cost, and whether they make an answer."""
        premise, digests, first = self.asked
        self.answered_by = _count_sources(premise.sources, digests, first)
        # What is asked twice in a batch costs the text that asks first.
        self.tokens = sum(premise.tokens.get(digest, 0) for digest in first) if premise.tokens else 0
        if "failed" in self.answered_by:
            self.error = premise.error or EngineError("the engine was not asked about all of this text's labels")
            return
        # Of these alone: another question about the same text may have failed.
        logits = [premise.logits[digest] for digest in digests]
        if scoring.is_finite(logits):
            self.logits = logits
        else:
            self.error = NotFinite("the model answered NaN or Inf for this text")


Entry = Question | InvalidMessage
"""One text of a message, or why it cannot be one."""


@dataclass(slots=True, kw_only=True)
class Work:
    """A batch between two steps."""

    deliveries: Sequence[Delivery]
    contents: Sequence[list[Entry] | InvalidMessage]
    """For each delivery its texts, or why it has none."""
    premises: Sequence[Premise]
    """The texts, each once."""
    infer_ms: float = 0.0
    device_ms: float = 0.0
    padded_tokens: int = 0
    shrunk: int = 0
    """How often a pass did not fit on the device and was halved."""
    answered_by: Counter[str] = field(default_factory=Counter)
    """Once it is folded: how many pairs were answered by what."""
    answers: dict[int, Answer] = field(default_factory=dict)
    """By ``id`` of the question."""

    questions: list[Question] = field(init=False)
    """The valid texts of all deliveries."""

    def __post_init__(self) -> None:
        self.questions = [e for entries in self.contents for e in entries_of(entries) if isinstance(e, Question)]

    @property
    def came_back(self) -> bool:
        """Whether it may have ended a worker before; then it holds one message."""
        return any(delivery.came_back for delivery in self.deliveries)

    @property
    def needs_device(self) -> bool:
        """Whether anything is left to ask the engine, now."""
        return any(premise.for_device for premise in self.premises)


def entries_of(contents: list[Entry] | InvalidMessage) -> list[Entry]:
    """The texts of a message, none where it could not be read."""
    return [] if isinstance(contents, InvalidMessage) else contents


def error_of(entry: Entry) -> TagmillError | None:
    """Why this text has no answer; None where it has one."""
    return entry if isinstance(entry, InvalidMessage) else entry.error


def _count_sources(sources: Mapping[bytes, str], digests: Iterable[bytes], first: Collection[bytes]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for digest in digests:
        source = sources.get(digest, "failed")
        if source == "computed" and digest not in first:
            source = "same_batch"
        counts[source] = counts.get(source, 0) + 1
    return counts
