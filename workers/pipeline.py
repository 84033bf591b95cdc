"""From the messages of one batch to a verdict for each, every one of them recorded.

The order of steps is all that lives here; Celery, Redis and torch are somebody else's. ``prepare`` reads the bodies
and asks the cache, ``infer`` asks the engine for what is missing, ``record`` folds, stores and returns the verdicts.
Batches overlap: while one infers, the next may prepare and the one before may record.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import structlog

from tagging.answers import Answer, AnsweringModel, CacheTier, ItemError, ManyAnswers
from tagging.digests import label_set_digest, text_digest
from tagging.errors import EngineError, InvalidMessage, NotFinite, TagmillError
from tagging.long_text import name_of
from tagging.messages import SCHEMA_VERSION, Decoder, TagTask, body_of
from tagging.names import TAG_MANY
from workers import scoring
from workers.batching import Size
from workers.ports import (
    CacheKey,
    DeadLetter,
    DeadLetters,
    Engine,
    Logit,
    ModelInfo,
    Pair,
    Reading,
    ResultCache,
    Stored,
    TagStore,
)
from workers.verdicts import Dead, Retry, Tagged, Verdict

log = structlog.get_logger()

_PAIR_OVERHEAD: Final = 8
"""Special tokens and a short template around a text and its label."""


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
    hypotheses: tuple[str, ...]
    key: CacheKey
    logits: dict[str, Logit] = field(default_factory=dict)
    tier: CacheTier = "none"
    tokens: int = 0
    readings: list[Reading] = field(default_factory=list)
    """Of the pairs that the engine read for it."""
    error: TagmillError | None = None

    def missing(self) -> list[Pair]:
        """The pairs that only the engine can answer."""
        return [Pair(self.task.text, h, self.task.long_text) for h in self.hypotheses if h not in self.logits]


Entry = Question | InvalidMessage
"""One text of a message, or why it cannot be one."""


@dataclass(slots=True, kw_only=True)
class Work:
    """A batch between two steps."""

    deliveries: Sequence[Delivery]
    contents: Sequence[list[Entry] | InvalidMessage]
    """For each delivery its texts, or why it has none."""
    infer_ms: float = 0.0
    device_ms: float = 0.0
    pairs: int = 0
    answers: dict[int, Answer] = field(default_factory=dict)
    """By ``id`` of the question."""

    questions: list[Question] = field(init=False)
    """The valid texts of all deliveries."""

    def __post_init__(self) -> None:
        self.questions = [e for entries in self.contents for e in _entries(entries) if isinstance(e, Question)]

    @property
    def needs_device(self) -> bool:
        """Whether anything is left to ask the engine."""
        return any(len(q.logits) < len(q.hypotheses) for q in self.questions)


class Pipeline:
    """Never raises but for a ledger out of reach; verdicts in the order of the deliveries, already recorded."""

    def __init__(
        self,
        *,
        engine: Engine,
        decoder: Decoder,
        cache: ResultCache,
        store: TagStore,
        dead_letters: DeadLetters,
        max_attempts: int,
        pepper: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._decoder = decoder
        self._cache = cache
        self._store = store
        self._dead_letters = dead_letters
        self._max_attempts = max_attempts
        self._pepper = pepper
        self._clock = clock

    @property
    def model(self) -> ModelInfo:
        """The model that answers."""
        return self._engine.info

    def weigh(self, task: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Size:
        """What the message will cost, guessed without checking it; a wrong message costs next to nothing."""
        body = args[0] if args else kwargs
        if not isinstance(body, dict):
            return Size(pairs=1, longest=1)
        texts = body.get("items") if task == TAG_MANY else [body]
        items = [item for item in texts if isinstance(item, dict)] if isinstance(texts, list) else []
        shared = self._count_labels(body)
        pairs = sum(self._count_labels(item) or shared for item in items)
        longest = max((_guess_tokens(item.get("text")) for item in items), default=1)
        return Size(pairs=max(pairs, 1), longest=min(longest + _PAIR_OVERHEAD, self.model.max_length))

    def prepare(self, deliveries: Sequence[Delivery]) -> Work:
        """Read the bodies and ask the cache, once for the whole batch."""
        work = Work(deliveries=deliveries, contents=[self._read(delivery) for delivery in deliveries])
        self._look_up(work.questions)
        return work

    def infer(self, work: Work) -> None:
        """Ask the engine for the pairs that no cache knew."""
        began = self._clock()
        self._entail([q for q in work.questions if len(q.logits) < len(q.hypotheses)], work)
        work.infer_ms = (self._clock() - began) * 1000

    def record(self, work: Work) -> list[Verdict]:
        """Store answers and dead letters, and say what becomes of each delivery.

        Raises:
            StoreUnavailable: Nothing is final yet; call again with the same work once the ledger is back.
        """
        self._fold(work)
        verdicts = [self._judge(d, c, work.answers) for d, c in zip(work.deliveries, work.contents, strict=True)]
        self._store.write(list(_rows(work, verdicts)))
        self._dead_letters.park(list(_letters(work, verdicts)))
        self._remember(work.questions)
        self._log(work, verdicts)
        return verdicts

    def give_up(self, deliveries: Sequence[Delivery], cause: TagmillError) -> list[Verdict]:
        """Verdicts for a batch that could not be processed at all: try each again, and park it in the end."""
        verdicts: list[Verdict] = [self._not_now(delivery, cause) for delivery in deliveries]
        self._dead_letters.park(
            [
                _letter(delivery, id_=delivery.id, body=delivery.body, cause=cause)
                for delivery, verdict in zip(deliveries, verdicts, strict=True)
                if isinstance(verdict, Dead)
            ]
        )
        return verdicts

    def close(self) -> None:
        """Free the device."""
        self._engine.close()

    # prepare

    def _read(self, delivery: Delivery) -> list[Entry] | InvalidMessage:
        try:
            body = body_of(delivery.args, delivery.kwargs)
            if delivery.task == TAG_MANY:
                items = self._decoder.many(body, task_id=delivery.id)
                return [self._question(delivery, i) if isinstance(i, TagTask) else i for i in items]
            return [self._question(delivery, self._decoder.one(delivery.task, body, task_id=delivery.id))]
        except InvalidMessage as e:
            return e

    def _question(self, delivery: Delivery, task: TagTask) -> Question:
        hypotheses = task.hypotheses
        key = CacheKey(
            model=f"{self.model.fingerprint[:16]}.{self.model.precision}{name_of(task.long_text)}",
            labels=label_set_digest(hypotheses, pepper=self._pepper),
            text=text_digest(task.text, pepper=self._pepper),
        )
        return Question(task=task, task_id=delivery.id, hypotheses=hypotheses, key=key)

    def _look_up(self, questions: Sequence[Question]) -> None:
        hits = self._cache.get_many([q.key for q in questions]) if questions else []
        for question, hit in zip(questions, hits, strict=True):
            if hit is not None and len(hit.logits) == len(question.hypotheses):
                question.logits = dict(zip(sorted(question.hypotheses), hit.logits, strict=True))
                question.tier = hit.tier

    def _count_labels(self, body: Mapping[str, Any]) -> int:
        labels, name = body.get("labels"), body.get("label_set")
        if isinstance(labels, list):
            return len(labels)
        return next((len(s.labels) for s in self._decoder.book if s.name == name), 0)

    # infer

    def _entail(self, questions: Sequence[Question], work: Work) -> None:
        """Fill in the logits; a text that fails is found by halving, so that it costs its neighbours nothing."""
        missing = [question.missing() for question in questions]
        pairs = list(dict.fromkeys(chain.from_iterable(missing)))
        if not pairs:
            return
        try:
            entailment = self._engine.entail(pairs)
        except EngineError as e:
            self._isolate(questions, work, e)
            return
        work.pairs += len(pairs)
        work.device_ms += entailment.device_ms
        found = zip(entailment.logits, entailment.tokens, entailment.readings, strict=True)
        _hand_out(zip(questions, missing, strict=True), dict(zip(pairs, found, strict=True)))

    def _isolate(self, questions: Sequence[Question], work: Work, cause: EngineError) -> None:
        if len(questions) == 1:
            questions[0].error = cause
            return
        log.warning("batch.halved", n=len(questions), cause=type(cause).__name__)
        middle = len(questions) // 2
        self._entail(questions[:middle], work)
        self._entail(questions[middle:], work)

    # record

    def _fold(self, work: Work) -> None:
        questions = work.questions
        for question in questions:
            if question.error is None and not scoring.is_finite(question.logits.values()):
                question.error = NotFinite("the model answered NaN or Inf for this text")
        queued_ms = {delivery.id: delivery.queued_ms for delivery in work.deliveries}
        tokens = sum(q.tokens for q in questions) or 1
        info = self.model
        model = AnsweringModel(
            name=info.name, revision=info.revision, fingerprint=info.fingerprint, precision=info.precision
        )
        work.answers = {
            id(q): self._answer(
                q,
                queue_ms=queued_ms[q.task_id],
                infer_ms=work.infer_ms if q.tier == "none" else 0.0,
                device_ms=work.device_ms * q.tokens / tokens,
                batch_size=len(questions),
                model=model,
            )
            for q in questions
            if q.error is None
        }

    @staticmethod
    def _answer(
        question: Question,
        *,
        queue_ms: float,
        infer_ms: float,
        device_ms: float,
        batch_size: int,
        model: AnsweringModel,
    ) -> Answer:
        task = question.task
        scores = scoring.score([question.logits[h] for h in question.hypotheses], multi_label=task.multi_label)
        tags = scoring.decide(task.labels, scores, multi_label=task.multi_label, policy=task.policy)
        return Answer(
            schema_version=SCHEMA_VERSION,
            id=task.id,
            kind=task.kind,
            source=task.source,
            ref=task.ref,
            revision=task.revision,
            decision=scoring.strongest(tags),
            tags=tags,
            labels=list(task.labels),
            scores=scores,
            multi_label=task.multi_label,
            template=task.template,
            label_set=task.label_set,
            label_set_digest=question.key.labels,
            model=model,
            long_text=task.long_text.rule,
            windows=max((reading.windows for reading in question.readings), default=None),
            truncated=any(reading.truncated for reading in question.readings) if question.readings else None,
            cache=question.tier,
            queue_ms=round(queue_ms, 3),
            infer_ms=round(infer_ms, 3),
            device_ms=round(device_ms, 3),
            batch_size=batch_size,
            tokens=question.tokens,
        )

    def _judge(
        self, delivery: Delivery, contents: list[Entry] | InvalidMessage, answers: Mapping[int, Answer]
    ) -> Verdict:
        if isinstance(contents, InvalidMessage):
            return Dead(cause=contents)
        failed = [entry.error for entry in contents if isinstance(entry, Question) and entry.error is not None]
        verdict = self._not_now(delivery, failed[0]) if failed else None
        if isinstance(verdict, Retry):
            return verdict
        if delivery.task == TAG_MANY:
            return Tagged(result=_many(delivery.id, contents, answers))
        if verdict is not None:
            return verdict
        return Tagged(result=next(answers[id(entry)] for entry in contents))

    def _not_now(self, delivery: Delivery, cause: TagmillError) -> Retry | Dead:
        return Retry(cause=cause) if delivery.attempts + 1 < self._max_attempts else Dead(cause=cause)

    def _remember(self, questions: Iterable[Question]) -> None:
        self._cache.put_many(
            {
                q.key: [q.logits[h] for h in sorted(q.hypotheses)]
                for q in questions
                if q.error is None and q.tier == "none"
            }
        )

    def _log(self, work: Work, verdicts: Sequence[Verdict]) -> None:
        questions = work.questions
        log.info(
            "batch.tagged",
            n=len(work.deliveries),
            texts=len(questions),
            pairs=work.pairs,
            cached=sum(q.tier != "none" for q in questions),
            tokens=sum(q.tokens for q in questions),
            queue_ms=round(max((d.queued_ms for d in work.deliveries), default=0.0)),
            infer_ms=round(work.infer_ms),
            model=self.model.name,
        )
        for delivery, verdict in zip(work.deliveries, verdicts, strict=True):
            match verdict:
                case Dead(cause=cause):
                    log.warning("message.parked", id=delivery.id, reason=str(cause), attempts=delivery.attempts + 1)
                case Retry(cause=cause):
                    log.warning("message.retried", id=delivery.id, reason=str(cause), attempts=delivery.attempts + 1)
                case Tagged():
                    pass


def _entries(contents: list[Entry] | InvalidMessage) -> list[Entry]:
    return [] if isinstance(contents, InvalidMessage) else contents


def _error(entry: Entry) -> TagmillError | None:
    return entry if isinstance(entry, InvalidMessage) else entry.error


def _guess_tokens(text: object) -> int:
    """About one token a Chinese character and one for three Latin letters."""
    if not isinstance(text, str):
        return 1
    return len(text) // 3 + 1 if text.isascii() else len(text)


def _hand_out(asked: Iterable[tuple[Question, list[Pair]]], known: Mapping[Pair, tuple[Logit, int, Reading]]) -> None:
    for question, pairs in asked:
        for pair in pairs:
            question.logits[pair.hypothesis], tokens, reading = known[pair]
            question.tokens += tokens
            question.readings.append(reading)


def _many(message_id: str, entries: Iterable[Entry], answers: Mapping[int, Answer]) -> ManyAnswers:
    results: list[Answer | ItemError] = []
    for entry in entries:
        error = _error(entry)
        results.append(ItemError(error=str(error)) if error is not None else answers[id(entry)])
    failed = sum("error" in result for result in results)
    return ManyAnswers(
        schema_version=SCHEMA_VERSION, id=message_id, done=len(results) - failed, failed=failed, answers=results
    )


def _rows(work: Work, verdicts: Sequence[Verdict]) -> Iterator[Stored]:
    """What the ledger gets: the answers of deliveries that are done."""
    for contents, verdict in zip(work.contents, verdicts, strict=True):
        for entry in _entries(contents) if isinstance(verdict, Tagged) else []:
            if isinstance(entry, Question) and entry.error is None:
                yield Stored(entry.task, entry.task_id, work.answers[id(entry)])


def _letters(work: Work, verdicts: Sequence[Verdict]) -> Iterator[DeadLetter]:
    """What is parked: dead messages, and the wrong items of ``tag_many`` messages that are done otherwise."""
    for delivery, contents, verdict in zip(work.deliveries, work.contents, verdicts, strict=True):
        match verdict:
            case Dead(cause=cause):
                yield _letter(delivery, id_=delivery.id, body=delivery.body, cause=cause)
            case Tagged() if delivery.task == TAG_MANY:
                yield from _item_letters(delivery, _entries(contents))
            case _:
                pass


def _item_letters(delivery: Delivery, entries: Sequence[Entry]) -> Iterator[DeadLetter]:
    body = delivery.body
    assert isinstance(body, dict)  # else the message would not have had items
    for i, entry in enumerate(entries):
        if (cause := _error(entry)) is not None:
            alone = {**body, "items": [body["items"][i]]}
            yield _letter(delivery, id_=f"{delivery.id}/{i}", body=alone, cause=cause)


def _letter(delivery: Delivery, *, id_: str, body: object, cause: TagmillError) -> DeadLetter:
    return DeadLetter(
        id=id_,
        task=delivery.task,
        queue=delivery.queue,
        reason=f"{type(cause).__name__}: {cause}",
        attempts=delivery.attempts + 1,
        payload=json.dumps(body, ensure_ascii=False),
    )
