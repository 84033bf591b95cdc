"""From the messages of one batch to a verdict for each, every one of them recorded.

The order of steps is all that lives here; Celery, Redis and torch are somebody else's. ``prepare`` reads the bodies
and asks the caches, ``infer`` asks the engine for what is missing, ``exchange`` shares it with the other workers and
takes what they were computing, ``record`` folds, stores and returns the verdicts. Batches overlap: while one infers,
the next may prepare and the one before may exchange or record.
"""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import structlog

from tagging.answers import Answer, AnsweringModel, CacheTier, ItemError, ManyAnswers
from tagging.digests import label_set_digest
from tagging.documents import Document
from tagging.errors import (
    DeviceOutOfMemory,
    DocumentErased,
    EngineDied,
    EngineError,
    InvalidMessage,
    NotFinite,
    TagmillError,
    WorkerCrashed,
)
from tagging.messages import SCHEMA_VERSION, Decoder, TagTask, body_of
from tagging.names import TAG_MANY, Lane, lane_of
from workers import scoring
from workers.batching import Size
from workers.metrics import (
    BATCH_MESSAGES,
    DEVICE_SECONDS,
    ENGINE_FAILURES,
    INFERENCE_SECONDS,
    MESSAGES,
    PADDED_TOKENS,
    PAIRS,
    QUEUE_SECONDS,
    TEXTS,
    TOKENS,
)
from workers.ports import Crashes, DeadLetter, DeadLetters, Engine, Logit, Meter, ModelInfo, Pair, Stored, TagStore
from workers.recall import Asked, Premise, Premises, Recall
from workers.verdicts import Dead, Refused, Retry, Tagged, Verdict

log = structlog.get_logger()

_PAIR_OVERHEAD: Final = 8
"""Special tokens and a short template around a text and its label."""
_MAX_CRASHES: Final = 3
"""Runs alone that ended the worker, after which a message is parked without another."""
_MAX_DEATHS: Final = 3
"""Attempts at a text that ends the engine's process each time: every one costs the loading of a model."""


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
    answered_by: Counter[str] = field(default_factory=Counter)
    """Once it is folded: how many pairs were answered by what."""
    answers: dict[int, Answer] = field(default_factory=dict)
    """By ``id`` of the question."""

    questions: list[Question] = field(init=False)
    """The valid texts of all deliveries."""

    def __post_init__(self) -> None:
        self.questions = [e for entries in self.contents for e in _entries(entries) if isinstance(e, Question)]

    @property
    def came_back(self) -> bool:
        """Whether it may have ended a worker before; then it holds one message."""
        return any(delivery.came_back for delivery in self.deliveries)

    @property
    def needs_device(self) -> bool:
        """Whether anything is left to ask the engine, now."""
        return any(premise.for_device for premise in self.premises)


class Pipeline:
    """Never raises but for a ledger out of reach; verdicts in the order of the deliveries, already recorded."""

    def __init__(
        self,
        *,
        engine: Engine,
        decoder: Decoder,
        recall: Recall,
        store: TagStore,
        dead_letters: DeadLetters,
        crashes: Crashes,
        max_attempts: int,
        meter: Meter,
        pepper: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._decoder = decoder
        self._recall = recall
        self._store = store
        self._dead_letters = dead_letters
        self._crashes = crashes
        self._max_attempts = max_attempts
        self._meter = meter
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
        """Read the bodies and ask the caches, once for the whole batch."""
        premises = Premises(model=_name_for_caches(self.model), pepper=self._pepper)
        contents = [self._read(delivery, premises) for delivery in deliveries]
        work = Work(deliveries=deliveries, contents=contents, premises=list(premises))
        self._recall.look_up(work.premises)
        return work

    def count(self, work: Work) -> WorkerCrashed | None:
        """Keep in the ledger that this work, which came back, runs now; why it must not, if it ended too many workers.

        Work that the caches answer is not counted: it does not come near the engine.

        Raises:
            StoreUnavailable: It must not run yet.
        """
        if not any(premise.open for premise in work.premises):
            return None
        crashes = max(self._crashes.begin(delivery.id) for delivery in work.deliveries) - 1
        if crashes < _MAX_CRASHES:
            return None
        return WorkerCrashed(f"{crashes} workers died while this message ran alone; it was not run again")

    def outlived(self, work: Work) -> None:
        """Forget the counts of this work: whatever became of it, the worker is there.

        Raises:
            StoreUnavailable: The counts are as they were.
        """
        self._crashes.end([delivery.id for delivery in work.deliveries])

    def infer(self, work: Work) -> None:
        """Ask the engine for the pairs that are left. One thread at a time: the caller holds the device."""
        began = self._clock()
        # Batches pass here one after the other, so what the one before has computed is in memory by now.
        self._recall.look_again(work.premises)
        self._entail(work.premises, work)
        self._recall.keep(work.premises)
        work.infer_ms += (self._clock() - began) * 1000

    def exchange(self, work: Work) -> None:
        """Share what was computed and take what other workers promised; the caller no longer holds the device.

        What did not come in time is the engine's to answer: then ``work.needs_device`` again, for the last time.
        """
        self._recall.share(work.premises)
        self._recall.wait_for_others(work.premises)

    def record(self, work: Work) -> list[Verdict]:
        """Store answers and dead letters, and say what becomes of each delivery.

        Raises:
            StoreUnavailable: Nothing is final yet; call again with the same work once the ledger is back.
        """
        self._recall.share(work.premises)
        self._fold(work)
        verdicts = [self._judge(d, c, work.answers) for d, c in zip(work.deliveries, work.contents, strict=True)]
        # In this order: a message that is finished in the intake is not published again, so its letters come first.
        self._dead_letters.park(list(_letters(work, verdicts)))
        erased = self._store.write(list(_rows(work, verdicts)), done=list(_done(work, verdicts)))
        if erased:
            verdicts = self._without(erased, work, verdicts)
        self._measure(work)
        self._measure_verdicts(work.deliveries, verdicts)
        self._log(work, verdicts)
        return verdicts

    def give_up(self, deliveries: Sequence[Delivery], cause: TagmillError) -> list[Verdict]:
        """Verdicts for a batch that could not be processed at all: try each again, and park it in the end."""
        return self._set_aside(deliveries, [self._not_now(delivery, cause) for delivery in deliveries], cause)

    def bury(self, deliveries: Sequence[Delivery], cause: TagmillError) -> list[Verdict]:
        """Verdicts for a batch that must not be processed at all: each is parked.

        Raises:
            StoreUnavailable: Nothing was parked; call again once the ledger is back.
        """
        for delivery in deliveries:
            log.warning("message.parked", id=delivery.id, reason=str(cause), attempts=delivery.attempts + 1)
        return self._set_aside(deliveries, [Dead(cause=cause) for _ in deliveries], cause)

    def _set_aside(
        self, deliveries: Sequence[Delivery], verdicts: Sequence[Verdict], cause: TagmillError
    ) -> list[Verdict]:
        self._dead_letters.park(
            [
                _letter(delivery, id_=delivery.id, body=delivery.body, cause=cause)
                for delivery, verdict in zip(deliveries, verdicts, strict=True)
                if isinstance(verdict, Dead)
            ]
        )
        self._measure_verdicts(deliveries, verdicts)
        return list(verdicts)

    def close(self) -> None:
        """Free the device."""
        self._engine.close()

    # prepare

    def _read(self, delivery: Delivery, premises: Premises) -> list[Entry] | InvalidMessage:
        try:
            body = body_of(delivery.args, delivery.kwargs)
            if delivery.task == TAG_MANY:
                items = self._decoder.many(body, task_id=delivery.id)
            else:
                items = [self._decoder.one(delivery.task, body, task_id=delivery.id)]
        except InvalidMessage as e:
            return e
        return [_question(delivery, i, premises) if isinstance(i, TagTask) else i for i in items]

    def _count_labels(self, body: Mapping[str, Any]) -> int:
        labels, name = body.get("labels"), body.get("label_set")
        if isinstance(labels, list):
            return len(labels)
        return next((len(s.labels) for s in self._decoder.book if s.name == name), 0)

    # infer

    def _entail(self, premises: Iterable[Premise], work: Work) -> None:
        """Fill in the logits; a text that fails is found by halving, so that it costs its neighbours nothing."""
        asked = [(premise, digests) for premise in premises if (digests := premise.for_device)]
        if not asked:
            return
        began = self._clock()
        try:
            entailment = self._engine.entail(list(_pairs(asked)))
        except EngineError as e:
            self._meter.add(ENGINE_FAILURES, cause=_cause(e))
            self._isolate([premise for premise, _ in asked], work, e)
            return
        self._meter.observe(INFERENCE_SECONDS, self._clock() - began)
        work.device_ms += entailment.device_ms
        work.padded_tokens += entailment.padded_tokens
        logits, tokens, readings = iter(entailment.logits), iter(entailment.tokens), iter(entailment.readings)
        for premise, digests in asked:
            n = len(digests)
            premise.compute(
                dict(zip(digests, islice(logits, n), strict=True)), dict(zip(digests, islice(tokens, n), strict=True))
            )
            premise.readings += islice(readings, n)

    def _isolate(self, premises: Sequence[Premise], work: Work, cause: EngineError) -> None:
        if len(premises) == 1:
            premises[0].error = cause
            return
        # A death costs the loading of a model, so the text that causes it is looked for one by one: one more death.
        size = 1 if isinstance(cause, EngineDied) else (len(premises) + 1) // 2
        log.warning("batch.divided", n=len(premises), into=size, cause=type(cause).__name__)
        for i in range(0, len(premises), size):
            self._entail(premises[i : i + size], work)

    # record

    def _fold(self, work: Work) -> None:
        questions = work.questions
        for question in questions:
            question.take_stock()
        work.answered_by = _sum(question.answered_by for question in questions)
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
                infer_ms=work.infer_ms,
                device_ms=work.device_ms * q.tokens / tokens,
                batch_size=len(questions),
                model=model,
            )
            for q in questions
            if q.error is None
        }

    def _answer(
        self,
        question: Question,
        *,
        queue_ms: float,
        infer_ms: float,
        device_ms: float,
        batch_size: int,
        model: AnsweringModel,
    ) -> Answer:
        task = question.task
        cache = _cache(question.answered_by)
        readings = question.asked.premise.readings
        scores = scoring.score(question.logits, multi_label=task.multi_label)
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
            label_set_digest=label_set_digest(task.hypotheses, pepper=self._pepper),
            model=model,
            long_text=task.long_text.rule,
            windows=max((reading.windows for reading in readings), default=None),
            truncated=any(reading.truncated for reading in readings) if readings else None,
            cache=cache,
            queue_ms=round(queue_ms, 3),
            infer_ms=round(infer_ms, 3) if cache in ("none", "pairs") else 0.0,
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
        if failed and delivery.task != TAG_MANY and isinstance(failed[0], DocumentErased):
            return Refused(cause=failed[0])
        faults = [error for error in failed if not isinstance(error, DocumentErased)]
        verdict = self._not_now(delivery, faults[0]) if faults else None
        if isinstance(verdict, Retry):
            return verdict
        if delivery.task == TAG_MANY:
            return Tagged(result=_many(delivery.id, contents, answers))
        if verdict is not None:
            return verdict
        return Tagged(result=next(answers[id(entry)] for entry in contents))

    def _without(self, erased: Collection[Document], work: Work, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """The verdicts, now that it is known which documents were erased while their texts were on the way."""
        for question in work.questions:
            if _document(question.task) in erased:
                question.error = DocumentErased()
        return [
            self._judge(delivery, contents, work.answers) if isinstance(verdict, Tagged) else verdict
            for delivery, contents, verdict in zip(work.deliveries, work.contents, verdicts, strict=True)
        ]

    def _not_now(self, delivery: Delivery, cause: TagmillError) -> Retry | Dead:
        most = min(self._max_attempts, _MAX_DEATHS) if isinstance(cause, EngineDied) else self._max_attempts
        return Retry(cause=cause) if delivery.attempts + 1 < most else Dead(cause=cause)

    def _measure(self, work: Work) -> None:
        self._meter.observe(BATCH_MESSAGES, len(work.deliveries))
        self._meter.add(TEXTS, len(work.questions))
        for answer, n in work.answered_by.items():
            self._meter.add(PAIRS, n, answer=answer)
        self._meter.add(TOKENS, sum(question.tokens for question in work.questions))
        self._meter.add(PADDED_TOKENS, work.padded_tokens)
        self._meter.add(DEVICE_SECONDS, work.device_ms / 1000)

    def _measure_verdicts(self, deliveries: Sequence[Delivery], verdicts: Sequence[Verdict]) -> None:
        outcomes: defaultdict[Lane, Counter[str]] = defaultdict(Counter)
        queued_s: defaultdict[Lane, list[float]] = defaultdict(list)
        for delivery, verdict in zip(deliveries, verdicts, strict=True):
            lane = lane_of(delivery.task)
            outcomes[lane][_outcome(verdict)] += 1
            queued_s[lane].append(delivery.queued_ms / 1000)
        for lane, counts in outcomes.items():
            self._meter.observe(QUEUE_SECONDS, *queued_s[lane], lane=lane)
            for outcome, n in counts.items():
                self._meter.add(MESSAGES, n, lane=lane, outcome=outcome)

    def _log(self, work: Work, verdicts: Sequence[Verdict]) -> None:
        questions = work.questions
        answered_by = work.answered_by
        log.info(
            "batch.tagged",
            n=len(work.deliveries),
            texts=len(questions),
            pairs=answered_by.total(),
            computed=answered_by["computed"],
            saved=answered_by.total() - answered_by["computed"] - answered_by["failed"],
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
                case Refused():
                    log.info("message.refused", id=delivery.id, reason="erased")
                case Tagged():
                    pass


def _name_for_caches(model: ModelInfo) -> str:
    """Everything about the model that its logits depend on."""
    return f"{model.fingerprint[:16]}.{model.precision}.{model.max_length}{'.exact' if model.exact else ''}"


def _question(delivery: Delivery, task: TagTask, premises: Premises) -> Question:
    return Question(task=task, task_id=delivery.id, asked=premises.ask(task.text, task.hypotheses, task.long_text))


def _entries(contents: list[Entry] | InvalidMessage) -> list[Entry]:
    return [] if isinstance(contents, InvalidMessage) else contents


def _error(entry: Entry) -> TagmillError | None:
    return entry if isinstance(entry, InvalidMessage) else entry.error


def _guess_tokens(text: object) -> int:
    """About one token a Chinese character and one for three Latin letters."""
    if not isinstance(text, str):
        return 1
    return len(text) // 3 + 1 if text.isascii() else len(text)


def _outcome(verdict: Verdict) -> str:
    match verdict:
        case Tagged():
            return "tagged"
        case Retry():
            return "retried"
        case Dead():
            return "dead"
        case Refused():
            return "refused"


def _cause(error: EngineError) -> str:
    match error:
        case EngineDied():
            return "died"
        case DeviceOutOfMemory():
            return "out_of_memory"
        case _:
            return "other"


def _pairs(asked: Iterable[tuple[Premise, Iterable[bytes]]]) -> Iterator[Pair]:
    for premise, digests in asked:
        for digest in digests:
            yield Pair(premise.text, premise.hypotheses[digest], premise.long_text)


def _count_sources(sources: Mapping[bytes, str], digests: Iterable[bytes], first: Collection[bytes]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for digest in digests:
        source = sources.get(digest, "failed")
        if source == "computed" and digest not in first:
            source = "same_batch"
        counts[source] = counts.get(source, 0) + 1
    return counts


def _sum(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for count in counts:
        for name, n in count.items():
            total[name] += n
    return total


def _cache(answered_by: Mapping[str, int]) -> CacheTier:
    """What the answer says about where it came from."""
    if "computed" in answered_by:
        return "pairs" if len(answered_by) > 1 else "none"
    return "shared" if "shared" in answered_by or "other_worker" in answered_by else "local"


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


def _done(work: Work, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """The messages that are done, even those of which every item was wrong."""
    return (
        delivery.id for delivery, verdict in zip(work.deliveries, verdicts, strict=True) if isinstance(verdict, Tagged)
    )


def _document(task: TagTask) -> Document:
    return Document(task.source, task.ref, task.kind)


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
        if (cause := _error(entry)) is not None and not isinstance(cause, DocumentErased):
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
